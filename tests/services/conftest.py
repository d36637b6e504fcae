"""`pod`: the panel itself on its socket, the gateway in front of it, and a stand-in for every service."""

from __future__ import annotations

import http.client
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from controlpilot.app import create_app
from controlpilot.auth.passwords import Passwords
from controlpilot.serving import make_server
from controlpilot.settings import Settings
from tests.services.gate import Gate, running
from tests.services.stand_ins import service
from trainpilot.workspace import Workspace


@dataclass
class Pod:
    gate: Gate
    door: Any
    password: str

    def ask(
        self, name: str, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """The answer as it came; its body is in .text."""
        link = http.client.HTTPConnection("127.0.0.1", self.gate.ports[name], timeout=15)
        link.request(method, path, body=body, headers={key.replace("_", "-"): value for key, value in headers.items()})
        answer = link.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        link.close()
        return answer

    def ticket(self, cookie: str, service: str) -> str:
        """A ticket for a service, as the panel makes it for the session of this cookie."""
        session = self.door.sessions.of_cookie(cookie.split("=", 1)[1])
        return str(self.door.tickets.issue(session.digest, service))

    def log_in(self) -> str:
        """The panel's cookie, by its login page."""
        form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": self.gate.origin("panel")}
        answer = self.ask("panel", "/login", "POST", urlencode({"password": self.password}), **form)
        assert answer.status == 303, answer.status
        return (answer.getheader("Set-Cookie") or "").split(";")[0]


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="open-") as name, service() as upstream:
        folder = Path(name)
        (folder / "workspace").mkdir()
        (folder / "secrets").mkdir(mode=0o700)
        (folder / "run").mkdir()
        Passwords(folder / "secrets").set("correct horse battery", "saved")
        socket = folder / "run" / "panel.sock"
        settings = Settings(Workspace(folder / "workspace"), folder / "secrets", folder / "run", socket=socket)
        app = create_app(settings)
        server = make_server(settings, app)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            for gate in running(folder, upstream, panel=False):
                yield Pod(gate, app.extensions["pilot"].door, "correct horse battery")
        finally:
            server.close()
            thread.join(timeout=5)
