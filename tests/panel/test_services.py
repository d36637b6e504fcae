"""The Services tab, its API and its command, over a real supervisord that watches real processes."""

from __future__ import annotations

import dataclasses
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlpilot.app import create_app
from controlpilot.cli import main
from controlpilot.settings import Settings
from controlpilot.supervisor import NotAnswering, Supervisor, read_log
from controlpilot.views.refusals import Conflict, NotFound
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

WEB = """
import http.server, socket, socketserver, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def address_string(self): return "a socket"
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
time.sleep(0.7)
socketserver.UnixStreamServer(sys.argv[1], Answer).serve_forever()
"""
TAKEN = """
import socket, sys
try:
    socket.create_server(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    sys.exit(f"port {sys.argv[1]} is taken: {error.strerror}")
"""
PROGRAM = """
[program:{name}]
command={python} {script} {argument}
autostart={autostart}
autorestart=unexpected
startsecs=1
startretries=1
stopwaitsecs=3
redirect_stderr=true
stdout_logfile={logs}/{name}.log
"""
SCRIPTS = {
    "tensorboard": "import time\nfor n in range(10**9):\n    print('line', n, 'ä', flush=True); time.sleep(0.02)",
    "trainpilot": "import sys; print('reading the settings'); sys.exit('no such disk')",
    "courier": TAKEN,
    "jupyterlab": WEB,
    "gateway": "import signal, time\nsignal.signal(1, lambda *_: print('opened anew', flush=True))\n"
    "while True: time.sleep(0.1)",
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """supervisord with one group of five programs; its run folder."""
    home = tmp_path_factory.mktemp("pod")
    (home / "services").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as held:
        arguments = {"courier": str(held.getsockname()[1]), "jupyterlab": str(home / "services" / "jupyter.sock")}
        text = (
            f"[supervisord]\nnodaemon=true\nlogfile={home}/supervisord.log\npidfile={home}/pid\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[unix_http_server]\nfile={home}/supervisor.sock\nchmod=0700\n"
            f"[group:pilot]\nprograms={','.join(SCRIPTS)}\n"
        )
        for name, script in SCRIPTS.items():
            (home / f"{name}.py").write_text(script)
            text += PROGRAM.format(
                name=name, python=sys.executable, script=home / f"{name}.py", argument=arguments.get(name, ""),
                autostart="false" if name == "jupyterlab" else "true", logs=home,
            )  # fmt: skip
        (home / "supervisord.conf").write_text(text)
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(home / "supervisord.conf")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: (home / "supervisor.sock").exists() and state(home, "trainpilot") == "FATAL")
            yield home
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=15)


def until(true, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def state(home: Path, name: str) -> str:
    return Supervisor(home / "supervisor.sock").states()[name].state


@pytest.fixture
def pod(daemon: Path, panel, monkeypatch: pytest.MonkeyPatch):
    """The panel of a pod whose supervisord is `daemon`."""
    monkeypatch.setenv("PILOT_RUN", str(daemon))
    panel.settings = dataclasses.replace(panel.settings, run=daemon, supervisor=daemon / "supervisor.sock")
    panel.app = create_app(panel.settings)
    return panel


def row(client, name: str) -> dict:
    return client.get(f"/api/v1/services/{name}").json


# --- the client -------------------------------------------------------------------------------------------------------


def test_states_say_what_runs_and_why_something_does_not(daemon: Path) -> None:
    states = Supervisor(daemon / "supervisor.sock").states()
    running, failed = states["tensorboard"], states["trainpilot"]
    assert running.state == "RUNNING" and running.pid and abs(running.since - time.time()) < 60
    assert failed.state == "FATAL" and failed.pid is None and "too quickly" in failed.exit_reason


def test_a_log_read_by_offsets_has_no_gap_and_no_line_twice(daemon: Path) -> None:
    client, text, offset = Supervisor(daemon / "supervisor.sock"), "", 0
    while text.count("\n") < 60:
        part = client.log("tensorboard", offset, limit=97)
        assert part.start == offset and len(part.text.encode()) == part.end - part.start <= 97
        text, offset = text + part.text, part.end
        if part.end == part.size:
            time.sleep(0.05)
    lines = text.splitlines()[:60]
    assert lines == [f"line {number} ä" for number in range(60)]


def test_a_log_is_never_read_whole(tmp_path: Path) -> None:
    big = tmp_path / "big.log"
    with big.open("wb") as file:
        file.truncate(2**33)
        file.seek(2**33)
        file.write(b"\nthe last line\n")
    part = read_log(big, None)
    assert part.text == "the last line\n" and part.end == part.size == 2**33 + 15
    again = read_log(big, 2**40)
    assert again.restarted and again.start == 0
    (tmp_path / "link.log").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic"):
        read_log(tmp_path / "link.log", None)


def test_start_stop_and_restart_are_safe_to_repeat(daemon: Path) -> None:
    client = Supervisor(daemon / "supervisor.sock")
    client.start("tensorboard")
    first = client.states()["tensorboard"].pid
    client.restart("tensorboard")
    until(lambda: state(daemon, "tensorboard") == "RUNNING")
    assert client.states()["tensorboard"].pid != first
    client.stop("tensorboard")
    client.stop("tensorboard")
    until(lambda: state(daemon, "tensorboard") == "STOPPED")
    client.restart("tensorboard")
    until(lambda: state(daemon, "tensorboard") == "RUNNING")


def test_what_is_not_there_is_named(daemon: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="tensorboard"):
        Supervisor(daemon / "supervisor.sock").start("nothing")
    with pytest.raises(NotAnswering, match=r"nobody\.sock"):
        Supervisor(tmp_path / "nobody.sock").states()
    with pytest.raises(Conflict):
        Supervisor(daemon / "supervisor.sock").signal("jupyterlab", "HUP")


def test_a_supervisord_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(NotAnswering):
            Supervisor(tmp_path / "silent.sock", timeout=0.3).states()
        assert time.monotonic() - began < 2


# --- page and API -----------------------------------------------------------------------------------------------------


def test_a_failed_service_shows_its_last_lines_and_takes_no_other_down(pod) -> None:
    failed = row(pod.client, "trainpilot")
    assert failed["state"] == "FATAL" and failed["last_lines"].endswith("no such disk")
    assert row(pod.client, "tensorboard")["state"] == "RUNNING"
    page = pod.client.get("/services").text
    assert "no such disk" in page and "TrainPilot does not start" in page


def test_a_taken_port_is_named(pod) -> None:
    until(lambda: row(pod.client, "courier")["state"] == "FATAL")
    assert re.search(r"port \d+ is taken", row(pod.client, "courier")["last_lines"])


def test_stop_and_start_from_the_page(pod) -> None:
    htmx = {"HX-Request": "true"}
    assert pod.client.post("/services/tensorboard/stop", headers=htmx).status_code == 200
    until(lambda: row(pod.client, "tensorboard")["state"] == "STOPPED")
    part = pod.client.get("/services?part=list").text
    assert 'hx-post="/services/tensorboard/start"' in part and "<html" not in part
    assert pod.client.post("/services/tensorboard/start").location == "/services"
    until(lambda: row(pod.client, "tensorboard")["state"] == "RUNNING")


def test_what_may_not_be_done_is_refused(pod) -> None:
    stop = pod.client.post("/api/v1/services/gateway/state", json={"do": "stop"})
    assert stop.status_code == 409 and row(pod.client, "gateway")["state"] == "RUNNING"
    assert pod.client.post("/api/v1/services/comfyui/state", json={"do": "start"}).status_code == 409
    assert pod.client.put("/api/v1/services/gateway/autostart", json={"autostart": False}).status_code == 409
    assert pod.client.post("/api/v1/services/nothing/state", json={"do": "start"}).status_code == 404
    assert pod.client.post("/api/v1/services/tensorboard/state", json={"do": "kill"}).status_code == 400
    assert pod.client.get("/api/v1/services/tensorboard/log?after=-1").status_code == 400


def test_autostart_is_kept_in_the_workspace(pod) -> None:
    assert row(pod.client, "tensorboard")["autostart"] is True
    changed = pod.client.put("/api/v1/services/tensorboard/autostart", json={"autostart": False})
    assert changed.json["autostart"] is False
    kept = (pod.workspace.root / "config" / "services.toml").read_text()
    assert "[tensorboard]\nautostart = false" in kept
    pod.client.post("/services/tensorboard/autostart", data={"on": "yes"})
    assert row(pod.client, "tensorboard")["autostart"] is True


def test_installing_is_a_job(pod) -> None:
    made = pod.client.post("/api/v1/services/comfyui/install", json={})
    assert made.status_code == 202 and made.json["kind"] == "service-install" and made.json["status"] == "queued"
    assert row(pod.client, "comfyui")["install"]["id"] == made.json["id"]
    assert pod.client.post("/api/v1/services/comfyui/install", json={}).status_code == 409
    assert pod.client.post("/api/v1/services/tensorboard/install", json={}).status_code == 409
    assert "Installing" in pod.client.get("/services").text


def test_opening_waits_until_the_service_answers_and_crosses_with_a_ticket(pod) -> None:
    client = pod.client
    waiting = client.get("/services/jupyterlab/open")
    assert waiting.status_code == 200 and "does not run" in waiting.text
    assert "HX-Redirect" not in client.get("/services/jupyterlab/opening").headers
    client.post("/services/jupyterlab/start")
    assert client.get("/services/jupyterlab/open").status_code == 200, "started, but silent yet"
    until(lambda: "HX-Redirect" in client.get("/services/jupyterlab/opening").headers)
    crossed = client.get("/services/jupyterlab/open")
    found = re.fullmatch(r"http://localhost:7880/\.pilot/enter\?ticket=([\w-]+)&next=%2F", crossed.location)
    assert crossed.status_code == 303 and found, crossed.location
    door = pod.desk.door
    assert door.tickets.take(found[1], "jupyterlab") == door.sessions.all()[-1].digest
    _, token = door.tokens.create("script")
    bearer = {"Authorization": f"Bearer {token}"}
    assert pod.anonymous.get("/services/jupyterlab/open", headers=bearer).status_code == 409
    assert client.get("/services/gateway/open").status_code == 409


def test_logging_out_makes_the_gateway_drop_what_is_open(pod, daemon: Path) -> None:
    before = (daemon / "gateway.log").read_text().count("opened anew")
    assert pod.client.post("/logout").status_code == 303
    until(lambda: (daemon / "gateway.log").read_text().count("opened anew") == before + 1)


def test_without_a_supervisord_the_page_says_what_runs(panel, tmp_path: Path) -> None:
    page = panel.client.get("/services").text
    assert "This machine is no pod" in page and "ControlPilot" in page and "/services/tensorboard/start" not in page
    assert panel.client.post("/api/v1/services/tensorboard/state", json={"do": "start"}).status_code == 409
    gone = dataclasses.replace(panel.settings, supervisor=tmp_path / "gone.sock")
    panel.app = create_app(gone)
    assert panel.client.get("/services").status_code == 200
    assert panel.client.get("/api/v1/services").json["managed"] is False


# --- addresses of services --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://pod.example:7880"),
        ({"RUNPOD_POD_ID": "abc1"}, "https://abc1-7880.proxy.runpod.net"),
        ({"PILOT_URL_TEMPLATE": "https://{service}.pod.example/"}, "https://jupyterlab.pod.example"),
        ({"VAST_TCP_PORT_7880": "41234", "PUBLIC_IPADDR": "203.0.113.9"}, "http://203.0.113.9:41234"),
        ({"VAST_TCP_PORT_7880": "41234"}, "http://pod.example:41234"),
    ],
    ids=str,
)
def test_where_a_service_is_reached(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    settings = Settings.find({"PILOT_WORKSPACE": str(tmp_path), "PILOT_RUN": str(tmp_path), **environ})
    assert settings.origin_of("jupyterlab", 7880, "pod.example:7878", False) == expected


@pytest.mark.parametrize(
    "environ",
    [{"PILOT_URL_TEMPLATE": "ftp://x"}, {"PILOT_URL_TEMPLATE": "https://{evil}"}, {"PILOT_PORT": "0"},
     {"PILOT_PREFIX": "/a b"}, {"PILOT_TRUSTED_PROXIES": "everybody"}],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(PilotError, match=next(iter(environ))):
        Settings.find({"PILOT_WORKSPACE": str(tmp_path), **environ})


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_does_the_same(pod, daemon: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PILOT_WORKSPACE", str(pod.workspace.root))
    assert main(["services", "list"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"trainpilot +FATAL", shown) and "no such disk" in shown
    assert main(["services", "stop", "tensorboard"]) == 0
    until(lambda: state(daemon, "tensorboard") == "STOPPED")
    assert main(["services", "start", "tensorboard"]) == 0
    until(lambda: state(daemon, "tensorboard") == "RUNNING")
    assert main(["services", "disable", "tensorboard"]) == 0
    assert not Workspace(pod.workspace.root / "x").root.exists()
    assert "autostart = false" in (pod.workspace.root / "config" / "services.toml").read_text()
    assert main(["services", "logs", "trainpilot"]) == 0
    assert capsys.readouterr().out.endswith("no such disk\n")
    assert main(["services", "stop", "gateway"]) == 2
    assert main(["services", "start", "nothing"]) == 2
    assert "tensorboard" in capsys.readouterr().err
