"""The service files under a real supervisord: the same text, only users taken out and ports made free."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlpilot.services import FOLDER, Service, environment, read
from trainpilot.workspace import Workspace

ROOT = Path(__file__).parents[2]
SUPERVISORD = Path(sys.executable).parent / "supervisord"


class _Link(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        link = http.client.HTTPConnection("localhost", timeout=30)
        link.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.sock.connect(str(self.path))
        return link


class Supervised:
    """A running supervisord. calls: its `supervisor` XML-RPC name space; places: what the .conf files were given."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], places: dict[str, str]) -> None:
        self.folder, self.process, self.places = folder, process, places
        self.calls: Any = xmlrpc.client.ServerProxy("http://x", transport=_Link(folder / "s.sock")).supervisor

    def state(self, name: str) -> str:
        return str(self.calls.getProcessInfo(f"pilot:{name}")["statename"])

    def until(self, name: str, *wanted: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while (seen := self.state(name)) not in wanted:
            assert time.monotonic() < deadline, f"{name} is {seen}, not {wanted}: {self.log(name)}"
            time.sleep(0.05)
        return seen

    def service(self, name: str) -> Service:
        return read(self.folder / "services" / f"{name}.conf")

    def log(self, name: str) -> str:
        """What it printed; nothing before its first start."""
        place = Path(self.places["PILOT_LOGS"]) / f"{name}.log"
        return place.read_text("utf-8", "replace") if place.exists() else ""


@contextlib.contextmanager
def supervised(
    names: dict[str, int | None], *, extra: dict[str, str] | None = None, **given: str
) -> Iterator[Supervised]:
    """supervisord with these services (name: local port or None to keep it), none started by itself; extra: programs
    of the test's own; given: PILOT_* values."""
    with tempfile.TemporaryDirectory(prefix="sup-") as place:
        folder = Path(place)
        confs = folder / "services"
        shutil.copytree(FOLDER / "seeds", confs / "seeds")
        for part in ("logs", "run/services", "home"):
            (folder / part).mkdir(parents=True)
        for name, port in names.items():
            text = re.sub(r"^user=.*\n", "", (FOLDER / f"{name}.conf").read_text(), flags=re.MULTILINE)
            if port:
                text = re.sub(r"(upstream = http://127\.0\.0\.1:)\d+", rf"\g<1>{port}", text)
            if name == "jupyterlab" and os.geteuid() == 0:
                text = text.replace("jupyter lab ", "jupyter lab --allow-root ")
            (confs / f"{name}.conf").write_text(text)
        for name, text in (extra or {}).items():
            (confs / f"{name}.conf").write_text(text)
        workspace = Workspace(folder / "workspace")
        fixed = {"PILOT_RUN": f"{folder}/run", "PILOT_LOGS": f"{folder}/logs", "PILOT_HOME": f"{folder}/home"}
        fixed |= {"PILOT_TOOLS": str(Path(sys.executable).parent.parent)} | given
        places = environment(workspace, fixed)
        places |= {name: "false" for name in places if name.startswith("PILOT_AUTOSTART_")}
        (folder / "supervisord.conf").write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/s.log\npidfile={folder}/s.pid\nchildlogdir={folder}\n"
            f"[unix_http_server]\nfile={folder}/s.sock\nchmod=0700\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[include]\nfiles={confs}/*.conf\n"
            f"[group:pilot]\nprograms={','.join([*names, *(extra or {})])}\n"
        )
        environ = {key: os.environ[key] for key in ("PATH", "LANG", "OMP_NUM_THREADS") if key in os.environ} | places
        command = [str(SUPERVISORD), "-c", str(folder / "supervisord.conf")]
        with (folder / "out.txt").open("wb") as out:
            process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, cwd=folder)
        try:
            deadline = time.monotonic() + 15
            while not (folder / "s.sock").exists():
                assert process.poll() is None and time.monotonic() < deadline, (folder / "out.txt").read_text()
                time.sleep(0.05)
            time.sleep(0.1)
            yield Supervised(folder, process, places)
        finally:
            process.terminate()
            process.wait(30)
