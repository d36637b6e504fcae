"""A log of any size, read a window at a time from an opaque place: its end, what follows, what came before, a search.

No call reads more than its budget, so that a log of a gigabyte costs what a small one does. A log may be cut into
segments while it is read (`trainpilot.runs.segments`). Used by a run's log and by the services' logs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from trainpilot.errors import PilotError
from trainpilot.runs import segments

WINDOW = 64 << 10  # bytes of a page of log
LARGEST = 1 << 20  # most a caller may ask for at once
SEARCH_BUDGET = 16 << 20  # bytes one call of a search looks through
_CHUNK = 1 << 20
_LONGEST_NEEDLE = 200
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")


class LogPart(BaseModel):
    """Whole lines between two places of a log. `start` and `end` are opaque and good for later calls."""

    lines: list[str]
    partial: str = Field(description="An unfinished last line; `end` stands before it")
    start: str
    end: str
    more_before: bool = Field(description="Whether older lines exist before `start`")
    size: int = Field(description="Bytes of the whole log, all segments")


class LogMatch(BaseModel):
    """One line that a search found. `at` is the place of its beginning."""

    line: str
    at: str


class LogSearch(BaseModel):
    """Matches, the newest first. `next` continues towards the beginning; None where that is reached."""

    matches: list[LogMatch]
    next: str | None
    looked_through: int = Field(description="Bytes this call read")


@dataclass(frozen=True)
class _Part:
    number: int
    path: Path
    size: int
    inode: int


def tail(path: Path, limit: int = WINDOW) -> LogPart:
    """The last lines, about `limit` bytes of them. A log that does not exist yet is an empty one."""
    parts = _parts(path)
    if not parts:
        return LogPart(lines=[], partial="", start=segments.START, end=segments.START, more_before=False, size=0)
    last = parts[-1]
    return _before(path, parts, last.number, last.size, _bounded(limit), at_end=True)


def after(path: Path, cursor: str, limit: int = WINDOW) -> LogPart:
    """What was written since `cursor`, at most about `limit` bytes. PilotError for a cursor that is none."""
    number, offset = segments.parse(cursor)
    parts = _parts(path)
    known = next((part for part in parts if part.number == number), None)
    if known is not None and known is parts[-1] and offset > known.size:
        cursor = f"{number}:0"  # somebody emptied the file: it begins again
    limit = _bounded(limit)
    data, end, finished = segments.read(path, cursor, limit)
    place, reached = segments.parse(end)
    start = f"{place}:{reached - len(data)}"
    cut = data.rfind(b"\n") + 1
    # A line longer than the window is handed out in pieces; else a reader would wait for its end for ever.
    if not cut and (len(data) >= limit or finished):
        cut = len(data)
    partial = data[cut:] if not finished else b""
    if finished and len(data) < limit:
        cut = len(data)
    return LogPart(
        lines=_lines(data[:cut]),
        partial=_clean(partial),
        start=start,
        end=f"{place}:{reached - len(data) + cut}",
        more_before=place > (parts[0].number if parts else 0) or reached > len(data),
        size=sum(part.size for part in parts),
    )


def before(path: Path, cursor: str, limit: int = WINDOW) -> LogPart:
    """The lines before `cursor`, about `limit` bytes of them."""
    number, offset = segments.parse(cursor)
    return _before(path, _parts(path), number, offset, _bounded(limit), at_end=False)


def search(path: Path, needle: str, cursor: str | None = None, limit: int = 200) -> LogSearch:
    """Lines that contain `needle`, in any case, from the end (or from before `cursor`) towards the beginning.

    Ends at `limit` matches, at the beginning, or when its budget of bytes is used; `next` goes on from there.
    """
    if not needle.strip() or len(needle) > _LONGEST_NEEDLE:
        allowed = f"1 to {_LONGEST_NEEDLE} letters"
        raise PilotError("search", repr(needle[:40]), allowed, "Say what to look for.")
    wanted = needle.lower()
    parts = _parts(path)
    if not parts:
        return LogSearch(matches=[], next=None, looked_through=0)
    number, offset = segments.parse(cursor) if cursor else (parts[-1].number, parts[-1].size)
    found: list[LogMatch] = []
    read = 0
    while read < SEARCH_BUDGET and len(found) < limit:
        window = _window(path, parts, number, offset, _CHUNK)
        if window is None:
            return LogSearch(matches=found, next=None, looked_through=read)
        number, first, data = window
        read += len(data)
        offset = first
        if wanted not in data.decode("utf-8", "replace").lower():
            continue
        place = first + len(data)
        for line in reversed(re.findall(rb"[^\n]*\n|[^\n]+", data)):
            place -= len(line)
            if wanted in line.decode("utf-8", "replace").lower():
                found.append(LogMatch(line=_clean(line), at=f"{number}:{place}"))
                if len(found) == limit:
                    offset = place
                    break
    return LogSearch(matches=found, next=f"{number}:{offset}", looked_through=read)


def _bounded(limit: int) -> int:
    return max(256, min(limit, LARGEST))


def _before(path: Path, parts: list[_Part], number: int, offset: int, limit: int, *, at_end: bool) -> LogPart:
    size = sum(part.size for part in parts)
    end = f"{number}:{offset}"
    window = _window(path, parts, number, offset, limit)
    if window is None:
        return LogPart(lines=[], partial="", start=end, end=end, more_before=False, size=size)
    place, first, data = window
    partial = b""
    if at_end and place == number and not data.endswith(b"\n"):
        cut = data.rfind(b"\n") + 1
        data, partial = data[:cut], data[cut:]
        end = f"{place}:{first + cut}"
    more = first > 0 or place > parts[0].number
    return LogPart(
        lines=_lines(data), partial=_clean(partial), start=f"{place}:{first}", end=end, more_before=more, size=size
    )


def _window(path: Path, parts: list[_Part], number: int, offset: int, limit: int) -> tuple[int, int, bytes] | None:
    """(segment, offset, whole lines) that end at a place; of the segment before where it is a segment's beginning."""
    for part in reversed(parts):
        if part.number > number:
            continue
        stop = min(offset, part.size) if part.number == number else part.size
        if stop <= 0:
            continue
        first = max(0, stop - limit)
        data = _read(path, part, first, stop - first)
        if not data:
            continue  # the segment went meanwhile: the log keeps a bounded number
        if first > 0:
            cut = data.find(b"\n") + 1
            if 0 < cut < len(data):
                first, data = first + cut, data[cut:]
        return part.number, first, data
    return None


def _parts(path: Path) -> list[_Part]:
    """Segments in order, the live file last. The live one is looked at first, so that a cut in between is noticed."""
    live = _stat(path)
    found = [
        _Part(number, other, stat.st_size, stat.st_ino)
        for number, other in segments.archived(path).items()
        if (stat := _stat(other)) is not None
    ]
    if live is not None and all(part.inode != live.st_ino for part in found):
        number = max((part.number for part in found), default=0) + 1
        found.append(_Part(number, path, live.st_size, live.st_ino))
    return found


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _read(path: Path, part: _Part, offset: int, length: int) -> bytes:
    """Bytes of a segment, also when it was renamed since it was listed; none where it is gone."""
    for place in (part.path, path.with_name(f"{path.stem}.{part.number}{path.suffix}")):
        try:
            with place.open("rb") as file:
                if os.fstat(file.fileno()).st_ino == part.inode:
                    file.seek(offset)
                    return file.read(length)
        except FileNotFoundError:
            continue
    return b""


def _lines(data: bytes) -> list[str]:
    if not data:
        return []
    return [_clean(line) for line in data.removesuffix(b"\n").split(b"\n")]


def _clean(line: bytes) -> str:
    """A line as a terminal would leave it: the last state of a progress bar, without colours and control characters."""
    text = _ESCAPES.sub("", line.decode("utf-8", "replace").rstrip("\r\n"))
    return _CONTROLS.sub("", text.rsplit("\r", 1)[-1])
