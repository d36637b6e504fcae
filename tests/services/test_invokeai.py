"""The real InvokeAI, from its installer to its stop: a service that nobody here wrote, behind our gateway.

Opt-in, because it fetches 2 GB: PILOT_REAL_SERVICES=1. PILOT_INVOKEAI_APPS names a folder to install into and to keep,
so that a second run is quick. What was found is recorded in benchmarks/results/invokeai_service.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlpilot.gateway import JS_MODULE
from controlpilot.services.health import healthy
from tests.services.gate import NGINX, running
from tests.services.stand_ins import Talk
from tests.services.supervised import ROOT, SUPERVISORD, supervised

APPS = os.environ.get("PILOT_INVOKEAI_APPS")  # before a fixture takes the caller's PILOT_* away
WANTED = os.environ.get("PILOT_REAL_SERVICES") == "1"
RESULT = ROOT / "benchmarks" / "results" / "invokeai_service.json"
LOCAL = "http://127.0.0.1:9090"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WANTED, reason="PILOT_REAL_SERVICES=1 fetches InvokeAI"),
    pytest.mark.skipif(not SUPERVISORD.exists(), reason="needs supervisor, of the extra dev"),
    pytest.mark.skipif(not Path(NGINX).exists() or not JS_MODULE.exists(), reason="needs nginx with its JavaScript"),
]


def install(apps: Path, workspace: Path) -> str:
    """With the torch of this project, because InvokeAI accepts it; returns what the installer said."""
    environ = os.environ | {
        "PILOT_WORKSPACE": str(workspace), "PILOT_APPS": str(apps), "PILOT_TORCH_INDEX": "none",
        "PILOT_TORCH_VERSION": "2.13.0", "PILOT_TORCHVISION_VERSION": "0.28.0",
    }  # fmt: skip
    command = ["bash", str(ROOT / "scripts" / "services" / "invokeai.sh"), "install"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_invokeai_is_installed_started_opened_and_stopped(tmp_path: Path) -> None:
    apps = Path(APPS) if APPS else tmp_path / "apps"
    began = time.monotonic()
    said = install(apps, tmp_path)
    installing = time.monotonic() - began
    assert "InvokeAI 6.14.2" in said
    with supervised({"invokeai": None}, PILOT_APPS=str(apps), PILOT_BUILT_APPS="/nonexistent") as pod:
        workspace = Path(pod.places["PILOT_WORKSPACE"])
        began = time.monotonic()
        pod.calls.startProcess("pilot:invokeai", False)
        while not healthy(pod.service("invokeai"))[0]:
            assert time.monotonic() - began < 900, pod.log("invokeai")[-4000:]
            time.sleep(0.2)
        starting = time.monotonic() - began
        with tempfile.TemporaryDirectory(prefix="invoke-") as short:
            for gate in running(Path(short), {"invokeai": LOCAL}):
                for path in ("/", "/api/v1/app/version", "/ws/socket.io/?EIO=4&transport=polling"):
                    assert gate.ask("invokeai", path, login=False)[0] == 401
                status, _, page = gate.ask("invokeai", "/")
                assert status == 200 and "<title>Invoke" in page, page
                assert gate.ask("invokeai", "/api/v1/app/version")[2]["version"] == "6.14.2"
                live = "/ws/socket.io/?EIO=4&transport=websocket"
                talk = Talk(gate.ports["invokeai"], gate.login("invokeai"), live)
                assert talk.status == 101 and talk.hear().startswith("0{")  # Engine.IO's greeting
                assert Talk(gate.ports["invokeai"], {"Origin": gate.origin("invokeai")}, live).status == 401
        # Pictures where all are; its database where a removal of the program leaves it.
        assert (workspace / "outputs" / "invokeai").is_dir()
        assert (apps / "invokeai" / "data" / "databases" / "invokeai.db").is_file()
        began = time.monotonic()
        pod.calls.stopProcess("pilot:invokeai", True)
        stopping = time.monotonic() - began
        assert stopping < 7.5 and not healthy(pod.service("invokeai"))[0]
    seconds = {"install": installing, "start": starting, "stop": stopping}
    record = {
        "what": "InvokeAI 6.14.2 installed by scripts/services/invokeai.sh, started by its service file, opened "
        "through the gateway with and without the login (page, API, WebSocket), stopped",
        "date": datetime.now(UTC).date().isoformat(),
        "device": "CPU",
        "installed_before": "done before" in said or "is installed" in said,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "said_by_the_installer": said.splitlines()[-1].replace(str(apps), "APPS"),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
