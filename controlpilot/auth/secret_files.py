"""Files of the secrets folder: 0700 for folders, 0600 for files, written whole. Used by auth and the notifications."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from trainpilot.runs.atomic import sync_folder

log = logging.getLogger(__name__)
LARGEST = 2**20  # bytes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the volume is full, or became read-only


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


def read(path: Path) -> bytes | None:
    """The content of a file that we or root wrote, None where there is none.

    Who owns the volume can put another folder in our place; a file of theirs would be a password of theirs.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.error("%s is not used: %s", path, error.strerror)
        return None
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if about.st_uid not in (0, os.geteuid()) or not stat.S_ISREG(about.st_mode):
            log.error("%s is not used: it belongs to user %s, and only ours or root's is trusted", path, about.st_uid)
            return None
        return file.read(LARGEST)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of ours; None where there is none, or a damaged one."""
    try:
        value = json.loads(read(path) or b"null")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def key(path: Path) -> bytes:
    """The 32 random bytes in a file; made at the first use, by whoever comes first."""
    found = read(path)
    if found is not None and len(found) == 32:
        return found
    folder(path.parent)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    made = secrets.token_bytes(32)
    write(beside, made)
    try:
        os.link(beside, path)  # fails where another made one meanwhile
    except OSError:
        found = read(path)
        if found is not None and len(found) == 32:
            return found
        beside.replace(path)  # cut off by a power failure, somebody else's, or a file system without links
    finally:
        beside.unlink(missing_ok=True)
    return made
