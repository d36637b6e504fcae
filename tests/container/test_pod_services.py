"""Services: over supervisord's socket, through the gateway with and without the login, crashing, and taken ports."""

from __future__ import annotations

import json
import uuid

import pytest
import requests
import websocket
from pods import Pod, until

ON = ("gateway", "panel", "trainpilot", "courier", "tensorboard", "jupyterlab")


@pytest.fixture(scope="module", autouse=True)
def all_up(pod: Pod) -> None:
    until(60, "all services", lambda: all(pod.states().get(name) == "RUNNING" for name in ON), every=1)


def listens(pod: Pod, port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in pod.run("cat", "/proc/net/tcp").stdout


def test_the_shell_stops_and_starts_what_the_ports_show(pod: Pod) -> None:
    until(30, "TensorBoard's port", lambda: listens(pod, 6006), every=0.5)
    pod.run("controlpilot", "services", "stop", "tensorboard")
    until(15, "its end", lambda: pod.states()["tensorboard"] == "STOPPED")
    assert not listens(pod, 6006)
    pod.run("controlpilot", "services", "start", "tensorboard")
    until(30, "its return", lambda: listens(pod, 6006), every=0.5)
    said = json.loads(pod.run("controlpilot", "services", "list", "--json").stdout)
    assert "tensorboard" in json.dumps(said)


@pytest.mark.parametrize("port", [7879, 7880, 7881, 7882, 7883, 7884, 7885])
def test_without_a_login_every_service_is_closed(pod: Pod, port: int) -> None:
    for path in ("/", "/api/status", "/data/environment", "/lab"):
        said = requests.get(pod.origin(port) + path, timeout=10, allow_redirects=False)
        assert said.status_code in (401, 403), f"{port}{path}: {said.status_code}"


def test_tensorboard_through_the_gateway(pod: Pod) -> None:
    session = pod.login()
    origin = pod.enter(session, "tensorboard")
    page = session.get(origin + "/", timeout=20)
    assert page.status_code == 200 and "TensorBoard" in page.text
    assert session.get(origin + "/data/environment", timeout=20).json()["data_location"].endswith("logs/tb")


def test_a_notebook_runs_a_cell_through_the_gateway(pod: Pod) -> None:
    session = pod.login()
    origin = pod.enter(session, "jupyterlab")
    assert "JupyterLab" in session.get(origin + "/lab", timeout=30).text
    headers = {"Origin": origin, "X-XSRFToken": session.cookies.get("_xsrf", domain=pod.ip) or ""}
    kernel = session.post(origin + "/api/kernels", json={}, headers=headers, timeout=60)
    assert kernel.status_code == 201, kernel.text
    address = f"{origin.replace('http', 'ws', 1)}/api/kernels/{kernel.json()['id']}/channels"
    cookies = "; ".join(f"{one.name}={one.value}" for one in session.cookies)
    with pytest.raises(websocket.WebSocketBadStatusException, match=r"40[13]"):
        websocket.create_connection(address, timeout=10, origin=origin)
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(address, timeout=10, origin="http://evil.example", cookie=cookies)
    talk = websocket.create_connection(address, timeout=60, origin=origin, cookie=cookies)
    code = "import os; print(6 * 7, os.getuid() != 0)"
    talk.send(json.dumps(_execute(code)))
    said = ""
    while "42" not in said:
        message = json.loads(talk.recv())
        if message["msg_type"] == "stream":
            said += message["content"]["text"]
        assert message["msg_type"] != "error", message
    assert "42 True" in said
    session.post(pod.origin() + "/logout", headers={"Origin": pod.origin()}, timeout=10)

    def closed() -> bool:
        try:
            talk.settimeout(2)
            return talk.recv() == ""
        except websocket.WebSocketTimeoutException:
            return False
        except (OSError, websocket.WebSocketException):
            return True

    until(10, "the end of the WebSocket after the log-out", closed)


def test_a_service_that_crashes_is_fatal_and_alone(pod: Pod) -> None:
    own = "[command]\n"
    own = 'command = ["sh", "-c", "echo last words; exit 3"]\nautostart = true\n'
    pod.run("sh", "-c", f"printf '%s' '{own}' > /workspace/config/services/broken.toml", user="pilot")
    pod.stop()
    pod.again().healthy()
    until(60, "its end", lambda: pod.states().get("own-broken") == "FATAL", every=0.5)
    assert "last words" in pod.run("cat", "/var/log/pilot/own-broken.log").stdout
    states = pod.states()
    assert all(states[name] == "RUNNING" for name in ("gateway", "panel", "trainpilot"))
    pod.run("rm", "/workspace/config/services/broken.toml")


def test_a_taken_port_is_named(pod: Pod) -> None:
    pod.run("controlpilot", "services", "stop", "tensorboard")
    until(15, "its end", lambda: pod.states()["tensorboard"] in ("STOPPED", "FATAL"))
    pod.run("/opt/venvs/core/bin/python", "-m", "http.server", "6006", "--bind", "127.0.0.1", user="pilot", detach=True)
    until(10, "the thief", lambda: listens(pod, 6006))
    pod.run("controlpilot", "services", "start", "tensorboard", check=False)
    until(40, "its giving up", lambda: pod.states()["tensorboard"] == "FATAL", every=0.5)
    assert "6006 is taken by" in pod.run("tail", "-n", "30", "/var/log/pilot/tensorboard.log").stdout
    pod.run("pkill", "-f", "http.server 6006")


def _execute(code: str) -> dict[str, object]:
    header = {
        "msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": "execute_request",
        "version": "5.3", "date": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
