"""A service opened as a person opens it: the panel's own login, its ticket, the gateway, JupyterLab with a kernel."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest

from controlpilot.gateway import JS_MODULE
from tests.services.conftest import Pod
from tests.services.gate import NGINX, running
from tests.services.stand_ins import Talk
from tests.services.supervised import SUPERVISORD, supervised

TOOLS = os.environ.get("PILOT_TOOLS", "/opt/venvs/tools")
pytestmark = pytest.mark.skipif(
    not Path(NGINX).exists() or not JS_MODULE.exists(), reason="needs nginx with its JavaScript module"
)


def test_the_panels_login_opens_a_service_by_ticket_and_its_log_out_closes_it(pod: Pod) -> None:
    assert pod.ask("panel", "/healthz").status == 200
    assert pod.ask("panel", "/", Accept="text/html").status in (302, 303, 401)
    assert pod.ask("comfyui", "/").status == 401
    cookie = pod.log_in()
    assert pod.ask("panel", "/api/v1/openapi.json", Cookie=cookie).status == 200
    enter = f"/.pilot/enter?ticket={quote(pod.ticket(cookie, 'comfyui'))}&next=/graph"
    assert pod.ask("jupyterlab", enter).status == 403  # a ticket of another service, and now it is used
    enter = f"/.pilot/enter?ticket={quote(pod.ticket(cookie, 'comfyui'))}&next=/graph"
    answer = pod.ask("comfyui", enter)
    assert (answer.status, answer.getheader("Location")) == (303, "/graph")
    given = answer.getheader("Set-Cookie") or ""
    assert given.startswith("pilot_service_comfyui=") and "httponly" in given.lower() and "domain" not in given.lower()
    assert pod.ask("comfyui", enter).status == 403
    crossed = given.split(";")[0]
    asked = pod.ask("comfyui", "/graph", Cookie=f"{crossed}; {cookie}")
    assert asked.status == 200 and "pilot_" not in asked.text  # type: ignore[attr-defined]
    assert pod.ask("jupyterlab", "/", Cookie=crossed).status == 401
    assert pod.ask("panel", "/api/v1/runs", Cookie=crossed).status in (303, 401)
    stolen = crossed.replace("pilot_service_comfyui", "pilot_service_jupyterlab")
    assert pod.ask("jupyterlab", "/", Cookie=stolen).status == 401
    origin = pod.gate.origin("comfyui")
    talk = Talk(pod.gate.ports["comfyui"], {"Cookie": crossed, "Origin": origin})
    assert talk.say("hello") == "hello"
    left = pod.ask("panel", "/logout", "POST", Cookie=cookie, Origin=pod.gate.origin("panel"))
    assert left.status == 303
    pod.gate.process.send_signal(1)  # HUP: what the panel asks supervisord for
    assert (talk.closed_within(6) or 9) < 4
    assert Talk(pod.gate.ports["comfyui"], {"Cookie": crossed, "Origin": origin}).status == 401


def test_a_foreign_page_cannot_use_the_panels_login(pod: Pod) -> None:
    cookie = pod.log_in()
    for origin in ("https://evil.example", pod.gate.origin("comfyui"), "null"):
        assert pod.ask("panel", "/logout", "POST", Cookie=cookie, Origin=origin).status == 403
    assert pod.ask("panel", "/api/v1/openapi.json", Cookie=cookie).status == 200


@pytest.mark.skipif(not SUPERVISORD.exists(), reason="needs supervisor")
@pytest.mark.skipif(not Path(TOOLS, "bin", "jupyter").exists(), reason="needs PILOT_TOOLS, with JupyterLab")
@pytest.mark.slow
def test_a_notebooks_kernel_runs_a_cell_through_the_gateway(tmp_path: Path) -> None:
    short = Path(tempfile.mkdtemp(prefix="lab-"))
    with supervised({"jupyterlab": None}, PILOT_TOOLS=TOOLS) as pod:
        pod.calls.startProcess("pilot:jupyterlab", False)
        lab = Path(pod.places["PILOT_RUN"], "services", "jupyter.sock")
        deadline = time.monotonic() + 90
        while not lab.exists():
            assert time.monotonic() < deadline, pod.log("jupyterlab")
            time.sleep(0.2)
        assert lab.stat().st_mode & 0o777 == 0o660  # for the group that it shares with the gateway
        for gate in running(short, {"jupyterlab": f"unix:{lab}"}):
            status, headers, _ = gate.ask("jupyterlab", "/lab")
            assert status == 200
            xsrf = next(line for line in headers["cookies"] if line.startswith("_xsrf")).split(";")[0]
            ours = {"Origin": gate.origin("jupyterlab"), "Content_Type": "application/json"}
            assert (
                gate.ask("jupyterlab", "/api/kernels", "POST", body="{}", Cookie=xsrf, **ours)[0] == 403
            )  # no XSRF header
            token = {"X_XSRFToken": xsrf.split("=", 1)[1]}
            status, _, kernel = gate.ask("jupyterlab", "/api/kernels", "POST", body="{}", Cookie=xsrf, **ours, **token)
            assert status == 201, kernel
            path = f"/api/kernels/{kernel['id']}/channels?session_id=test"
            assert Talk(gate.ports["jupyterlab"], {"Origin": gate.origin("jupyterlab")}, path).status == 401
            evil = gate.login("jupyterlab") | {"Origin": "https://evil.example"}
            assert Talk(gate.ports["jupyterlab"], evil, path).status == 403
            talk = Talk(gate.ports["jupyterlab"], gate.login("jupyterlab"), path)
            assert talk.status == 101
            talk.link.settimeout(60)
            head = {
                "msg_id": uuid.uuid4().hex,
                "msg_type": "execute_request",
                "username": "",
                "session": "test",
                "version": "5.3",
            }
            cell = {"code": "import os\nprint(6 * 7, os.getcwd())", "silent": False, "store_history": False}
            talk.send(
                json.dumps({"header": head, "parent_header": {}, "metadata": {}, "content": cell, "channel": "shell"})
            )
            while True:
                said = json.loads(talk.hear())
                if said["msg_type"] == "stream":
                    break
            assert said["content"]["text"] == f"42 {pod.places['PILOT_WORKSPACE']}\n"
        begin = time.monotonic()
        pod.calls.stopProcess("pilot:jupyterlab", True)
        assert time.monotonic() - begin < 5.5
    shutil.rmtree(short)
