"""Files of the secrets folder: 0700 for folders, 0600 for files, written whole. Used by auth and the notifications."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from trainpilot.runs.atomic import sync_folder


def folder(path: Path) -> Path:
    """Make the folder and its parents; the folder itself is closed to everybody else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    return path


def write(path: Path, data: bytes) -> None:
    """Replace a file: never readable by others, not even for a moment. Raises OSError."""
    folder(path.parent)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def key(path: Path) -> bytes:
    """The 32 random bytes in a file; made at the first use, by whoever comes first."""
    with contextlib.suppress(FileNotFoundError):
        found = path.read_bytes()
        if len(found) == 32:
            return found
    folder(path.parent)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write(beside, secrets.token_bytes(32))
    try:
        os.link(beside, path)  # fails where another made one meanwhile
    except FileExistsError:
        if len(path.read_bytes()) != 32:  # cut off by a power failure
            beside.replace(path)
    except OSError:
        beside.replace(path)  # a file system without links
    finally:
        beside.unlink(missing_ok=True)
    return path.read_bytes()
