"""An append-only file that is cut into numbered segments, and a reader's place in it that survives the cutting.

`events.jsonl` becomes `events.1.jsonl`, then `events.2.jsonl`, and a new `events.jsonl` begins. The live file is the
segment after the highest number. A cursor is `segment:offset`, opaque to readers. Used by the events and the log.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from trainpilot.errors import PilotError

START = "0:0"
_CURSOR = re.compile(r"(\d{1,12}):(\d{1,18})")


def archived(path: Path) -> dict[int, Path]:
    """The finished segments of a file by number, in order."""
    found = {}
    for other in path.parent.glob(f"{path.stem}.*{path.suffix}"):
        number = other.name[len(path.stem) + 1 : len(other.name) - len(path.suffix)]
        if number.isdigit():
            found[int(number)] = other
    return dict(sorted(found.items()))


def rotate(path: Path, keep: int | None = None) -> None:
    """Make the live file a finished segment. keep: segments that stay; None keeps all. For the only writer."""
    numbers = archived(path)
    path.rename(path.with_name(f"{path.stem}.{max(numbers, default=0) + 1}{path.suffix}"))
    if keep is not None:
        for old in list(archived(path).values())[: -keep or None]:
            old.unlink()


def parse(cursor: str) -> tuple[int, int]:
    """(segment, offset) of a cursor; PilotError for anything else."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise PilotError("cursor", repr(cursor), "a cursor from an earlier answer", "Start again without a cursor.")
    return int(match[1]), int(match[2])


def read(path: Path, cursor: str = START, limit: int = 1 << 20) -> tuple[bytes, str, bool]:
    """At most `limit` bytes from the cursor on, all of one segment; the next cursor; whether the segment is finished.

    A segment that is gone (the log keeps a bounded number) is skipped to the oldest that is left. No bytes and an
    unfinished segment mean: nothing new. Raises PilotError for a malformed cursor.
    """
    segment, offset = parse(cursor)
    while True:
        opened = _open(path, segment)
        if opened is None:
            return b"", f"{segment}:{offset}", False
        handle, number, finished = opened
        with os.fdopen(handle, "rb") as file:
            if number != segment:
                offset = 0
            segment = number
            file.seek(offset)
            data = file.read(limit)
        if data or not finished:
            return data, f"{segment}:{offset + len(data)}", finished
        segment, offset = segment + 1, 0


def _open(path: Path, segment: int) -> tuple[int, int, bool] | None:
    """(descriptor, number, finished) of the segment, or of the next one that exists; None where there is none."""
    # The live file is opened first: if it is cut meanwhile, its inode is found among the finished ones, so that
    # its number is certain whatever the writer does between our two looks.
    try:
        live = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        live = None
    finished = archived(path)
    wanted = [number for number in finished if number >= segment]
    if live is not None:
        same = [n for n, other in finished.items() if _inode(other) == os.fstat(live).st_ino]
        number = same[0] if same else max(finished, default=0) + 1
        if not wanted or wanted[0] >= number:
            return live, number, bool(same)
        os.close(live)
    if not wanted:
        return None
    return os.open(finished[wanted[0]], os.O_RDONLY | os.O_CLOEXEC), wanted[0], True


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
