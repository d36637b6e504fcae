"""Which services a person wants started with the pod: `config/services.toml` of the workspace, plain booleans.

Written by the panel and `controlpilot services enable|disable`; read at boot. It can only switch what exists.
"""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from pathlib import Path

import tomli_w

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

LARGEST = 64 * 1024  # bytes; more is no list of switches


def choices(workspace: Workspace) -> dict[str, bool]:
    """name -> started with the pod. An unreadable file chooses nothing: the pod has to come up.

    Who asks for the reason gets it from `trouble`."""
    return _read(place(workspace))[0]


def trouble(workspace: Workspace) -> str | None:
    """Why the file is not used, where it is not: for the boot log and the Services page."""
    return _read(place(workspace))[1]


def choose(workspace: Workspace, name: str, autostart: bool) -> None:
    """Notes the choice for the next boot. Raises PilotError where the file cannot be read or written."""
    path = place(workspace)
    chosen, why = _read(path)
    if why:
        raise PilotError(path.name, why, "a table of service = { autostart = true or false }", "mend or remove it")
    chosen[name] = autostart
    text = tomli_w.dumps({key: {"autostart": value} for key, value in sorted(chosen.items())})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".services-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("# Which services start with the pod.\n" + text)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o664)
        Path(beside).replace(path)
    except OSError as error:
        raise PilotError(str(path), error.strerror or error, "a workspace that can be written", "free it") from error


def place(workspace: Workspace) -> Path:
    """The file of the choices."""
    return workspace.root / "config" / "services.toml"


def contents(path: Path | str, folder: int | None = None) -> bytes | None:
    """A small plain file, or None where there is none. Boot reads as root what others write: no link is followed, no
    pipe is waited for. Raises OSError with the reason otherwise."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "not a plain file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(0, f"more than {LARGEST // 1024} KiB")
    return data


def _read(path: Path) -> tuple[dict[str, bool], str | None]:
    try:
        data = contents(path)
        said = tomllib.loads(data.decode("utf-8")) if data is not None else {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    chosen: dict[str, bool] = {}
    for name, value in said.items():
        flag = value.get("autostart") if isinstance(value, dict) else None
        if not isinstance(flag, bool):
            return {}, f"{name!r} has no autostart = true or false"
        chosen[name] = flag
    return chosen, None
