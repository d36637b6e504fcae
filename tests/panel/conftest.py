"""`panel`: an application on a fresh workspace with a client that is logged in. `live_panel`: the same, served."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controlpilot.app import create_app
from controlpilot.auth.guard import COOKIE
from controlpilot.auth.passwords import FILE, Passwords
from controlpilot.desk import Desk
from controlpilot.serving import make_server
from controlpilot.settings import Settings
from trainpilot.workspace import Workspace

ORIGIN = "http://localhost"  # what Flask's test client calls itself
PASSWORD = "correct horse battery"


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
        client = self.anonymous
        client.set_cookie(COOKIE, self.cookie())
        return client

    @property
    def desk(self) -> Desk:
        return cast(Desk, self.app.extensions["pilot"])

    def cookie(self) -> str:
        """The value of a new session's cookie."""
        return self.desk.door.sessions.begin("a test", "127.0.0.1")[1]


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


@pytest.fixture(scope="session")
def password_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the hash of PASSWORD, which takes too long to be made for every test."""
    made = tmp_path_factory.mktemp("password")
    Passwords(made).set(PASSWORD, "saved")
    return made


@pytest.fixture
def settings(tmp_path: Path, password_folder: Path) -> Settings:
    """Settings of a fresh workspace with a password."""
    made = settings_of(tmp_path)
    made.secrets.mkdir(mode=0o700)
    shutil.copy(password_folder / FILE, made.secrets)
    return made


@pytest.fixture
def panel(settings: Settings) -> Panel:
    return Panel(create_app(settings), settings, PASSWORD)


@pytest.fixture
def live_panel(settings: Settings) -> Iterator[LivePanel]:
    """Served by waitress on a free port of 127.0.0.1, as `controlpilot serve` does."""
    settings = replace(settings, port=0)
    app = create_app(settings)
    server = make_server(settings, app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield LivePanel(f"http://127.0.0.1:{server.effective_port}", PASSWORD, settings, app)
    server.close()
    thread.join(timeout=5)
