"""Files that appear whole: a reader sees the old content or the new, never a part. Used by all who write."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

_numbers = itertools.count()


def write_beside(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: written beside it, synced, renamed, and the folder synced.

    durable=False leaves out both syncs, for files that mean nothing after the machine went down (the heartbeat): on a
    network volume a sync can take a second. Raises OSError, and leaves the old file as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """`value` as indented JSON, by `write_beside`."""
    write_beside(path, (json.dumps(value, indent=1, default=str) + "\n").encode(), durable=durable)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is none yet: no file, an empty one, or one that is damaged.

    A file system that lost power may show an empty or cut file although it was renamed into place.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
