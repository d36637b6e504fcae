"""Finds what a person wants to be told of: runs that ended or lost their way, a full disk, a service that fails.

`Watch.look` is called every few seconds by the courier's lookout. It reads the workspace's files and supervisord, puts
notices into the outbox, and keeps in the secrets folder what it has told: a restart tells nothing twice, and what
happened while nobody watched is told late. The first look at a workspace tells nothing of the past.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from controlpilot.auth import secret_files
from controlpilot.outbox import Outbox
from controlpilot.run_jobs import RunJobs
from controlpilot.supervisor import Supervisor
from controlpilot.views.course import Course
from controlpilot.views.dashboard import DISK_LOW, DISK_VERY_LOW
from controlpilot.views.run_index import Row, read_row
from controlpilot.views.settings import Event, Preferences
from controlpilot.words import bytes_text, count_text, duration_text, money_text
from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs import events, segments
from trainpilot.runs.job import Job
from trainpilot.runs.secrets import redact
from trainpilot.workspace import Workspace

FILE = "watch.json"
SETTLE = 3.0  # seconds an end has to stand: the worker puts a run that failed back into the queue within one
LOST = 60.0  # seconds after which a run whose process is gone counts as interrupted: no worker took it up
DISK_BACK = 1.25  # times the limit that must be free before a full disk is told again
DRAWN_EVERY = 10.0  # seconds between two looks at supervisord and the disk
READ = 1 << 20  # bytes of a live run's events read at one look
COURSE_BUDGET = 20.0  # seconds to read the events of a run that ended
LAST_LINES = 8
CURSORS_EVERY = 60.0  # seconds between two writes of how far events were read
ROLLED_BACK = "rolled back"  # in the warning of a run whose loss was no number; trainpilot.engine says it so


@dataclass(frozen=True)
class End:
    """A run that ended by itself or by a person. status: done, failed, stopped or interrupted."""

    name: str
    status: str


@dataclass
class _Memory:
    """What was told. runs: run -> the end that was told last; cursors: how far a live run's events were read;
    services: program -> when the failure that was told happened; disk: ok, low or full."""

    runs: dict[str, str] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)
    services: dict[str, float] = field(default_factory=dict)
    disk: str = "ok"


class Watch:
    """link: the address of a page of the panel, from its path; "" where none is known. clock: unix seconds."""

    def __init__(
        self,
        workspace: Workspace,
        secrets: Path,
        outbox: Outbox,
        runs: RunJobs,
        supervisor: Supervisor | None,
        *,
        link: Callable[[str], str] = lambda path: "",
        settle: float = SETTLE,
        lost: float = LOST,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._workspace, self._outbox, self._runs, self._supervisor = workspace, outbox, runs, supervisor
        self._path = secrets / FILE
        self._link, self._settle, self._lost = link, settle, lost
        self._clock, self._steady, self._free = clock, steady, free
        self._since: dict[str, tuple[str, float]] = {}  # run -> an end, and when it was seen first
        self._drawn = self._kept = float("-inf")
        self._found = 0  # notices that came from events
        self._memory, self._new = self._read()

    def look(self, set_to: Preferences, at_rest: str = "") -> list[End]:
        """One look; the runs whose end was seen for the first time. Raises OSError where its memory cannot be kept.

        at_rest: what to add to the end of a run after which nothing runs or waits.
        """
        before = self._marks()
        jobs = self._runs.now()
        ends = [end for name, job in jobs.items() if (end := self._ended(name, job))]
        first, self._new = self._new, False
        told = [] if first else ends
        rests = not any(job.live or job.status == "queued" for job in jobs.values())
        for end in told:
            self._tell_end(end, jobs[end.name], set_to, at_rest if rests else "")
        for name, job in jobs.items():
            if job.live:
                self._events(name, set_to, quiet=first)
        self._memory.runs = {name: mark for name, mark in self._memory.runs.items() if name in jobs}
        self._memory.cursors = {n: cursor for n, cursor in self._memory.cursors.items() if n in jobs and jobs[n].live}
        if self._steady() - self._drawn >= DRAWN_EVERY:
            self._drawn = self._steady()
            self._disk(set_to)
            self._services(set_to)
        if first or self._marks() != before or self._steady() - self._kept >= CURSORS_EVERY:
            # After the notices: a crash in between tells one twice rather than never.
            secret_files.write_json(self._path, {"schema": 1, **vars(self._memory)})
            self._kept = self._steady()
        return told

    def _marks(self) -> str:
        """All that must be on the disk as soon as it changes; the cursors may lag while nothing is found with them."""
        return repr((self._memory.runs, self._memory.services, self._memory.disk, self._found))

    # -- runs -------------------------------------------------------------------------------------------------------

    def _ended(self, name: str, job: Job) -> End | None:
        """The end of a run that has stood long enough and was not told before; remembers it."""
        status, patience = _end_of(job), self._settle
        if status == "interrupted":
            patience = self._lost
        if not status:
            self._since.pop(name, None)
            return None
        mark = f"{job.attempts} {status} {job.times.get('ended', job.times.get('queued', 0.0)):.3f}"
        if self._memory.runs.get(name) == mark:
            return None
        if self._since.get(name, ("", 0.0))[0] != mark:
            self._since[name] = (mark, self._steady())
        if not self._new and self._steady() - self._since[name][1] < patience:
            return None
        del self._since[name]
        self._memory.runs[name] = mark
        return End(name, status)

    def _tell_end(self, end: End, job: Job, set_to: Preferences, at_rest: str) -> None:
        event: Event = {"done": "done", "stopped": "stopped"}.get(end.status, "failed")  # type: ignore[assignment]
        if event not in set_to.tell_when:
            return
        path = self._workspace.outputs / end.name
        row = read_row(path)
        words = {"done": "is done", "failed": "failed", "stopped": "was stopped", "interrupted": "was interrupted"}
        lines = [
            _progress(row),
            _cost(_seconds_at_work(path, job), set_to.price_per_hour),
            _because(end.status, job.reason),
            at_rest,
            self._link(f"/runs/{end.name}"),
        ]
        title = f"{row.title or end.name} {words[end.status]}"
        self._outbox.put(f"run {end.name} {self._memory.runs[end.name]}", title, "\n".join(filter(None, lines)))

    def _events(self, name: str, set_to: Preferences, quiet: bool) -> None:
        """Warnings of a live run that a person should know before its end."""
        path = self._workspace.outputs / name / "events.jsonl"
        while True:
            found, cursor = events.read(path, self._memory.cursors.get(name, segments.START), READ)
            self._memory.cursors[name] = cursor
            for event in found:
                text = str(event.get("text", ""))
                if quiet or event["kind"] != "warning" or ROLLED_BACK not in text or "nan" not in set_to.tell_when:
                    continue
                title = f"{name}: the loss stopped being a number"
                lines = [redact(text), "It went back to a good state and trains on.", self._link(f"/runs/{name}")]
                key = f"nan {name} {event.get('attempt')} {event.get('t')}"
                self._outbox.put(key, title, "\n".join(filter(None, lines)))
                self._found += 1
            if not (quiet and found):
                return  # a long history is read over several looks, unless nothing of it is to be told

    # -- the machine ------------------------------------------------------------------------------------------------

    def _disk(self, set_to: Preferences) -> None:
        free = self._free(self._workspace.root)
        now = "full" if free < DISK_VERY_LOW else "low" if free < DISK_LOW else "ok"
        before = self._memory.disk
        worse = ("ok", "low", "full").index(now) > ("ok", "low", "full").index(before)
        if worse and "disk" in set_to.tell_when:
            title = "The disk is full" if now == "full" else "The disk is nearly full"
            lines = [
                f"{bytes_text(free)} are free in {self._workspace.root}.",
                "Delete checkpoints and models that you no longer need, and empty the trash.",
                self._link("/"),
            ]
            self._outbox.put(f"disk {now} {self._clock()}", title, "\n".join(filter(None, lines)))
        if worse or (now == "low" and before == "full" and free > DISK_BACK * DISK_VERY_LOW):
            self._memory.disk = now
        elif now == "ok" and free > DISK_BACK * DISK_LOW:
            self._memory.disk = "ok"

    def _services(self, set_to: Preferences) -> None:
        if self._supervisor is None:
            return
        try:
            states = self._supervisor.states()
        except PilotError:
            return  # the pod is on its way up or down; supervisord has a log of its own
        failed = {name: one.since or 0.0 for name, one in states.items() if one.state == "FATAL"}
        for name, since in failed.items():
            if self._memory.services.get(name) == since or "service" not in set_to.tell_when:
                continue
            lines = [states[name].exit_reason, *self._last_lines(name), self._link("/services")]
            self._outbox.put(f"service {name} {since}", f"{name} does not start", "\n".join(filter(None, lines)))
        self._memory.services = failed

    def _last_lines(self, name: str) -> list[str]:
        assert self._supervisor is not None
        try:
            return redact(self._supervisor.last_lines(name, LAST_LINES)).splitlines()
        except (PilotError, OSError) as error:
            return [f"its log cannot be read: {error}"]

    def _read(self) -> tuple[_Memory, bool]:
        """What was told, and whether there is no memory yet."""
        found = secret_files.read_json(self._path)
        if found is None:
            return _Memory(), True
        kept = {name: found[name] for name in ("runs", "cursors", "services") if isinstance(found.get(name), dict)}
        disk = found.get("disk")
        return _Memory(disk=disk if disk in ("ok", "low", "full") else "ok", **kept), False


def _end_of(job: Job) -> str:
    """done, failed, stopped or interrupted; "" for a run that has not ended, or that the worker continues by itself."""
    view = job.view
    if view == "stopped" and (job.exit_code == ExitCode.PREEMPTED or not job.attempts):
        return ""
    return view if view in ("done", "failed", "stopped", "interrupted") else ""


def _seconds_at_work(path: Path, job: Job) -> float:
    """Over all attempts, as the events tell; else of the last attempt."""
    course = Course(path / "events.jsonl")
    course.advance(COURSE_BUDGET)
    started, ended = job.times.get("started"), job.times.get("ended")
    last = ended - started if started is not None and ended is not None else 0.0
    return max(course.seconds, last)


def _progress(row: Row) -> str:
    if not row.step:
        return ""
    steps = f"{count_text(row.step)} of {count_text(row.steps)} steps" if row.steps else f"{count_text(row.step)} steps"
    return steps + (f", loss {row.loss:.4g}" if row.loss is not None else "")


def _cost(seconds: float, price: float | None) -> str:
    if seconds < 1:
        return ""
    text = f"took {duration_text(seconds)}"
    return (
        text if price is None else f"{text}, cost {money_text(seconds / 3600 * price)} at {money_text(price)} an hour"
    )


def _because(status: str, reason: str) -> str:
    """Why, where that says more than the title."""
    if status == "interrupted":
        return "Its process is gone and no worker took it up; resume it from its last checkpoint."
    return redact(reason)[:1000] if status != "done" else ""
