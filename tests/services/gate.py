"""A real nginx with the gateway's configuration, on free ports: for the tests that ask it something."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controlpilot.gateway import render
from controlpilot.services import services
from controlpilot.settings import Settings
from tests.services.stand_ins import Panel, free_port
from trainpilot.workspace import Workspace

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


@dataclass
class Gate:
    ports: dict[str, int]
    panel: Panel
    process: subprocess.Popen[bytes]
    folder: Path

    def ask(
        self, name: str, path: str = "/", method: str = "GET", login: bool = True, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any], Any]:
        """status, headers (several Set-Cookie as a list under "cookies"), body decoded where it is JSON."""
        link = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=15)
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        if login:
            sent["Cookie"] = "; ".join(filter(None, [sent.get("Cookie"), f"pilot_service_{name}=session-1"]))
        link.request(method, path, body=body, headers=sent)
        answer = link.getresponse()
        data = answer.read()
        link.close()
        said: dict[str, Any] = {key.lower(): value for key, value in answer.getheaders()}
        said["cookies"] = answer.headers.get_all("Set-Cookie") or []
        try:
            return answer.status, said, json.loads(data)
        except ValueError:
            return answer.status, said, data.decode("utf-8", "replace")

    def log(self) -> str:
        return (self.folder / "nginx.log").read_text() + (self.folder / "errors.log").read_text()

    def origin(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def login(self, name: str) -> dict[str, str]:
        return {"Cookie": f"pilot_service_{name}=session-1", "Origin": self.origin(name)}


def free_ports(folder: Path) -> dict[str, int]:
    """A free port for each public one."""
    return {one.name: free_port() for one in services(Workspace(folder)) if one.port}


def running(
    folder: Path, upstream: int | dict[str, str], panel: bool = True, ports: dict[str, int] | None = None, **more: Any
) -> Iterator[Gate]:
    """nginx in front of stand-ins. upstream: the port of all services, or where some of them listen; panel: start the
    stand-in of the panel, else somebody else serves run/panel.sock."""
    run = folder / "run"
    (run / "gateway").mkdir(parents=True)
    ports = ports or free_ports(folder)
    known = services(Workspace(folder))
    ours = []
    for one in known:
        if one.port:
            local = upstream.get(one.name) if isinstance(upstream, dict) else f"http://127.0.0.1:{upstream}"
            if one.name == "code-server":
                local = f"unix:{run}/nobody.sock"  # a service that is not running
            ours.append(replace(one, port=ports[one.name], upstream=one.upstream if one.name == "panel" else local))
    settings = Settings(Workspace(folder), secrets=folder, run=run, **more)
    (folder / "nginx.log").touch()
    text = render(settings, ours, listen="127.0.0.1", access_log=str(folder / "nginx.log"))
    (run / "nginx.conf").write_text(text)
    asked = Panel(run / "panel.sock")
    if panel:
        asked.start()
    with (folder / "errors.log").open("wb") as errors:
        command = [NGINX, "-e", "stderr", "-c", str(run / "nginx.conf")]
        if os.geteuid() == 0:
            command += ["-g", "user root;"]  # its workers would otherwise be of a user who may not read here
        process = subprocess.Popen(command, stderr=errors)
    gate = Gate(ports, asked, process, folder)
    try:
        for _ in range(100):
            try:
                gate.ask("panel")
                break
            except OSError:
                assert process.poll() is None, (folder / "errors.log").read_text()
                time.sleep(0.05)
        yield gate
    finally:
        process.terminate()
        process.wait(10)
        asked.stop()
