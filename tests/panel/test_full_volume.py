"""A volume that fills up while the panel runs: log-ins go on, and what cannot be written is said in a sentence."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlpilot.app import create_app
from controlpilot.auth.guard import COOKIE
from controlpilot.settings import Settings

HOST = {"Host": "10.0.0.7:7878", "Origin": "http://10.0.0.7:7878"}


@pytest.fixture
def small(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Settings whose secrets lie on a file system of 128 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can make a small file system here")
    try:
        yield replace(settings, secrets=Path(shutil.copytree(settings.secrets, place / "panel")))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_login_works_where_nothing_more_can_be_written(panel, small: Settings) -> None:
    panel = replace(panel, app=create_app(small), settings=small)
    panel.cookie()  # one that is kept as usual; it also makes the key, as boot does
    fill(small.secrets.parent)
    client = panel.app.test_client()
    answered = client.post("/login", data={"password": panel.password}, headers=HOST, base_url=HOST["Origin"])
    assert answered.status_code == 303 and answered.headers["Set-Cookie"].startswith(COOKIE)
    assert client.get("/api/v1/openapi.json", base_url=HOST["Origin"]).status_code == 200  # it was learned
    assert len(panel.desk.door.sessions.all()) == 2
    assert client.post("/logout", headers=HOST, base_url=HOST["Origin"]).status_code == 303
    assert client.get("/api/v1/openapi.json", base_url=HOST["Origin"]).status_code == 401
    assert list((small.run / "sessions").glob("*.json")) == []


def test_what_cannot_be_written_is_said_with_its_remedy(panel, small: Settings) -> None:
    app = create_app(small)

    @app.get("/writes")
    def writes() -> str:
        (small.secrets / "more").write_bytes(b"x" * 2**17)
        return "written"

    client = replace(panel, app=app, settings=small).client
    fill(small.secrets.parent)
    said = client.get("/writes")
    assert said.status_code == 507
    assert "No space left" in said.json["error"]["given"] and "Free some space" in said.json["error"]["remedy"]
