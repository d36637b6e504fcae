"""What a run's events say so far, read once and then only what is new: its lines of numbers, notices, checkpoints.

The files are the truth; what is kept here may be forgotten at any time and is read again. Steps that a later attempt or
a rollback went over again are dropped as `trainpilot.runs.events.history` drops them. Used by series, signs and run.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainpilot.runs import events, segments
from trainpilot.runs.events import Event

METRICS = ("loss", "loss_avg", "lr", "it_s", "images_s", "vram_gb", "grad_norm")
BUDGET = 0.12  # seconds one call reads at most; the rest comes with the next call
KEPT_STEPS = 2_000_000  # steps of all courses kept: about 65 MB
_CHUNK = 512 << 10
_NOTES = 300  # newest notices and warnings kept of a run
_PAUSE = 60.0  # seconds between two events after which the run was not at work


@dataclass
class Course:
    """One run's events. Arrays hold `points` values; `rewinds` counts how often steps were dropped."""

    path: Path
    cursor: str = segments.START
    points: int = 0
    rewinds: int = 0
    complete: bool = False  # whether everything that was in the files at the last look has been read
    steps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    values: dict[str, np.ndarray] = field(default_factory=lambda: {name: np.empty(0, np.float32) for name in METRICS})
    plan: Event | None = None
    end: Event | None = None
    notes: deque[Event] = field(default_factory=lambda: deque(maxlen=_NOTES))
    checkpoints: dict[int, Event] = field(default_factory=dict)
    samples: set[int] = field(default_factory=set)
    starts: list[Event] = field(default_factory=list)
    epoch: int = 0
    seconds: float = 0.0  # at work, over all attempts
    nan_steps: list[int] = field(default_factory=list)
    last_step_at: float | None = None
    _last_at: float | None = None
    _last_step: int | None = None
    _oldest: int | None = None  # inode of the first segment: another one means another file

    def advance(self, budget: float | None = None) -> None:
        """Read what is new, for about `budget` seconds."""
        budget = BUDGET if budget is None else budget
        if self._replaced():
            again = Course(self.path, rewinds=self.rewinds + 1, _oldest=_oldest(self.path))
            self.__dict__.update(again.__dict__)
        end = time.monotonic() + budget
        while True:
            found, cursor = events.read(self.path, self.cursor, _CHUNK)
            self.cursor = cursor
            if not found:
                self.complete = True
                return
            self._take(found)
            if time.monotonic() >= end:
                self.complete = False
                return

    def values_of(self, name: str) -> np.ndarray:
        """The numbers of one metric, one for each of `told_steps`; NaN where the run did not tell."""
        return self.values[name][: self.points]

    @property
    def told_steps(self) -> np.ndarray:
        return self.steps[: self.points]

    @property
    def of(self) -> int:
        """Steps of the whole run, as last told; 0 while unknown."""
        told = self.starts[-1].get("of") if self.starts else None
        told = told or (self.plan or {}).get("steps")
        return told if isinstance(told, int) else 0

    def last(self, name: str) -> float | None:
        """The newest number of a metric."""
        value = float(self.values[name][self.points - 1]) if self.points else float("nan")
        return None if value != value else value

    def _replaced(self) -> bool:
        """Whether the files are not those that were read: emptied, or put there anew."""
        oldest = _oldest(self.path)
        if self._oldest is None:
            self._oldest = oldest
        number, offset = segments.parse(self.cursor)
        if oldest != self._oldest:
            return True
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return False
        return number > max(segments.archived(self.path), default=0) and size < offset

    def _take(self, found: list[Event]) -> None:
        rows: list[Event] = []
        for event in found:
            kind = event["kind"]
            self._clock(event)
            if kind == "step":
                step = event.get("step")
                if not isinstance(step, int) or isinstance(step, bool):
                    continue
                if self._last_step is not None and step <= self._last_step:
                    self._append(rows)
                    rows = []
                    self._back_to(step)
                self._last_step = step
                rows.append(event)
                if event.get("loss") is None:
                    self.nan_steps.append(step)
                continue
            self._append(rows)
            rows = []
            self._other(kind, event)
        self._append(rows)

    def _other(self, kind: str, event: Event) -> None:
        if kind == "start":
            step = event.get("from_step")
            if isinstance(step, int):
                self._back_to(step)
            self.starts.append(event)
            self.end = None
        elif kind == "plan":
            self.plan = event
        elif kind == "end":
            self.end = event
        elif kind in ("notice", "warning"):
            self.notes.append(event)
        elif kind in ("checkpoint", "sample") and isinstance(event.get("step"), int):
            if kind == "sample":
                self.samples.add(event["step"])
            else:
                self.checkpoints[event["step"]] = event

    def _clock(self, event: Event) -> None:
        at = event.get("t")
        if not isinstance(at, (int, float)):
            return
        if self._last_at is not None and event["kind"] != "start":
            gap = at - self._last_at
            self.seconds += gap if 0 < gap < _PAUSE or (gap > 0 and event["kind"] == "step") else 0.0
        self._last_at = at
        if event["kind"] == "step":
            self.last_step_at = at

    def _back_to(self, step: int) -> None:
        kept = int(np.searchsorted(self.told_steps, step))
        if kept < self.points:
            self.points = kept
            self.rewinds += 1
        self.samples = {one for one in self.samples if one < step}
        self.checkpoints = {one: event for one, event in self.checkpoints.items() if one < step}
        self.nan_steps = [one for one in self.nan_steps if one < step]

    def _append(self, rows: list[Event]) -> None:
        if not rows:
            return
        needed = self.points + len(rows)
        if needed > len(self.steps):
            room = max(needed, len(self.steps) * 3 // 2, 256)
            self.steps = _grown(self.steps, room)
            self.values = {name: _grown(array, room) for name, array in self.values.items()}
        place = slice(self.points, needed)
        self.steps[place] = [row["step"] for row in rows]
        for name, array in self.values.items():
            array[place] = [_number(row.get(name)) for row in rows]
        self.points = needed
        epoch = rows[-1].get("epoch")
        self.epoch = epoch if isinstance(epoch, int) else self.epoch


class Courses:
    """The courses of the runs that were looked at last, within a bound of memory."""

    def __init__(self, kept_steps: int = KEPT_STEPS) -> None:
        self.kept_steps = kept_steps
        self._courses: OrderedDict[Path, tuple[Course, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, run: Path, budget: float | None = None) -> Course:
        """The course of a run folder, with what is new; several threads may ask, one reads."""
        budget = BUDGET if budget is None else budget
        with self._lock:
            course, lock = self._courses.setdefault(run, (Course(run / "events.jsonl"), threading.Lock()))
            self._courses.move_to_end(run)
        # Whoever comes while another reads a long file is answered with what there is, not kept waiting.
        if lock.acquire(timeout=budget):
            try:
                course.advance(budget)
            finally:
                lock.release()
        with self._lock:
            while len(self._courses) > 1 and sum(len(one.steps) for one, _ in self._courses.values()) > self.kept_steps:
                self._courses.popitem(last=False)
        return course

    def forget(self, run: Path) -> None:
        with self._lock:
            self._courses.pop(run, None)


COURSES = Courses()


def _grown(array: np.ndarray, room: int) -> np.ndarray:
    grown = np.empty(room, array.dtype)
    grown[: len(array)] = array
    return grown


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def _oldest(path: Path) -> int | None:
    finished = segments.archived(path)
    first = finished[min(finished)] if finished else path
    try:
        return first.stat().st_ino
    except FileNotFoundError:
        return None
