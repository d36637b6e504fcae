"""events.jsonl: what happened in a run, one JSON object a line, appended and never changed.

`EventLog` is for the job, the only writer; `read` and `history` are for everybody else. A run that was killed while
writing leaves a torn line: readers skip it, and the next writer ends it with a line break.
"""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

from trainpilot.errors import RunFailed
from trainpilot.runs import segments
from trainpilot.runs.secrets import redact

Event = dict[str, Any]
SEGMENT_BYTES = 32 << 20  # about 150,000 steps
_PLACED = ("step", "sample", "checkpoint")  # kinds that tell the state of the run after a step
_LINE_LIMIT = 64 << 20  # beyond this a line that never ends is taken for damage


class EventLog:
    """The writer's end. Every event is one write to an append descriptor, so lines never mix."""

    def __init__(self, path: Path, attempt: int = 0, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path, self.attempt, self.segment_bytes = path, attempt, segment_bytes
        self._handle: int | None = None
        self._size = 0
        self._torn = False

    def append(self, kind: str, /, **fields: Any) -> None:
        """Add one event with `t` (unix seconds), the attempt, `kind` and its fields. RunFailed where it cannot.

        Numbers that are not finite become null, paths and other objects their text; secrets are blotted out.
        """
        event = {"t": round(time.time(), 3), "attempt": self.attempt, "kind": kind} | fields
        try:
            line = json.dumps(event, default=str, allow_nan=False)
        except ValueError:
            line = json.dumps(_finite(event), default=str)
        if kind != "step":
            line = json.dumps(_redacted(json.loads(line)))
        try:
            self._write(line.encode() + b"\n")
        except OSError as error:
            raise RunFailed(self.path, error.strerror or error, "a writable file", "Free disk space.") from error

    def _write(self, line: bytes) -> None:
        handle = self._open()
        if self._torn:
            line = b"\n" + line
        written = os.write(handle, line)
        self._size += written
        self._torn = written < len(line)
        if self._torn:
            raise OSError("only part of the line could be written: the disk is full")
        if self._size >= self.segment_bytes:
            self.close()
            segments.rotate(self.path)

    def _open(self) -> int:
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664
            )
            self._size = os.fstat(self._handle).st_size
            self._torn = self._size > 0 and os.pread(self._handle, 1, self._size - 1) != b"\n"
        return self._handle

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read(path: Path, cursor: str = segments.START, limit: int = 1 << 20) -> tuple[list[Event], str]:
    """Whole events after the cursor, about `limit` bytes of them, and the next cursor.

    An unfinished last line stays for the next call; lines that are not JSON objects are skipped. No events and an
    unchanged cursor mean: nothing new. Raises PilotError for a malformed cursor.
    """
    while True:
        data, after, finished = segments.read(path, cursor, limit)
        if not data:
            return [], after
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= limit and limit < _LINE_LIMIT:
            limit *= 2
            continue
        # A finished segment cannot grow: its torn last line is passed over. A live one is read up to its last break.
        if not end and not finished and len(data) < _LINE_LIMIT:
            return [], cursor
        events = [event for line in data[:end].split(b"\n") if (event := _parse(line)) is not None]
        number, offset = segments.parse(after)
        whole = len(data) < limit and finished
        cursor = after if whole or not end else f"{number}:{offset - len(data) + end}"
        if events:
            return events, cursor


def history(path: Path) -> list[Event]:
    """All events as one course: what a later attempt went over again is taken from the later attempt.

    A `start` with from_step, the first step an attempt makes, drops steps, samples and checkpoints of earlier attempts
    at or after it. A rollback inside an attempt goes back the same way: a step event drops earlier ones at or after it.
    """
    kept: list[Event | None] = []
    steps: list[int] = []  # ascending, with `places` beside it: the placed events that still count
    places: list[int] = []

    def back_to(step: int) -> None:
        first = bisect_left(steps, step)
        for place in places[first:]:
            kept[place] = None
        del steps[first:], places[first:]

    cursor, last = segments.START, None
    while True:
        events, cursor = read(path, cursor)
        if not events:
            return [event for event in kept if event is not None]
        for event in events:
            kind = event["kind"]
            step = event.get("from_step" if kind == "start" else "step")
            if isinstance(step, int):
                if kind == "start" or (kind == "step" and last is not None and step <= last):
                    back_to(step)
                last = step if kind == "step" else last
                if kind in _PLACED:
                    # A sample may be told late, after further steps: it keeps its place by its step.
                    at = bisect_right(steps, step)
                    steps.insert(at, step)
                    places.insert(at, len(kept))
            kept.append(event)


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value
