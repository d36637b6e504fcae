"""`panel`: an application on a fresh workspace with a client that is logged in. `live_panel`: the same, served."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controlpilot.app import create_app
from controlpilot.serving import make_server
from controlpilot.settings import Settings
from trainpilot.workspace import Workspace

ORIGIN = "http://localhost"  # what Flask's test client calls itself


@dataclass
class Panel:
    """client is logged in and sends the Origin that a browser would; anonymous is not."""

    app: Flask
    settings: Settings
    password: str

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @property
    def anonymous(self) -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["HTTP_ORIGIN"] = ORIGIN
        return client

    @property
    def client(self) -> FlaskClient:
        return self.anonymous


@dataclass
class LivePanel:
    """url ends without a slash."""

    url: str
    password: str
    settings: Settings
    app: Flask


def settings_of(tmp_path: Path, **changed: object) -> Settings:
    """Settings of a fresh workspace in tmp_path, which knows no supervisord."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.root.mkdir(exist_ok=True)
    folders = {"secrets": tmp_path / "secrets", "run": tmp_path / "run"}
    return Settings(workspace=workspace, **(folders | changed))  # type: ignore[arg-type]


@pytest.fixture
def panel(tmp_path: Path) -> Panel:
    settings = settings_of(tmp_path)
    return Panel(create_app(settings), settings, "")


@pytest.fixture
def live_panel(tmp_path: Path) -> Iterator[LivePanel]:
    """Served by waitress on a free port of 127.0.0.1, as `controlpilot serve` does."""
    settings = settings_of(tmp_path, port=0)
    app = create_app(settings)
    server = make_server(settings, app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield LivePanel(f"http://127.0.0.1:{server.effective_port}", "", settings, app)
    server.close()
    thread.join(timeout=5)
