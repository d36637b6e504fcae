"""What every folder of a long task shares: its lock, its attempts, and what became of it, in the contracts' files.

`RunDir` (training, in outputs/) and `JobDir` (everything else, in jobs/) are two of these; the worker, the courier and
the verbs handle both alike.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from trainpilot.errors import ExitCode, PilotError, RunFailed
from trainpilot.runs.events import EventLog
from trainpilot.runs.job import Job, Status, mark
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.requests import Requests
from trainpilot.runs.secrets import redact
from trainpilot.runs.state import StateFile
from trainpilot.workspace import Workspace

LONGEST_NAME = 100
STARTED_BY = "PILOT_STARTED_BY"  # the worker and the courier set it for the processes they start


class TaskDir:
    """One long task. Paths are absolute; `attempt` is 0 until `begin_attempt`, then counts from 1."""

    WORD: ClassVar[str] = "task"

    def __init__(self, path: Path, workspace: Workspace) -> None:
        self.path, self.workspace = path, workspace
        self.attempt = 0
        self.writes = True  # false in the further processes of one run over several devices
        self.notes: list[str] = []
        self.lock = FolderLock(path / "run.lock")
        self.events = EventLog(path / "events.jsonl")
        self.state = StateFile(path / "state.json")
        self._requests: Requests | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def requests_folder(self) -> Path:
        return self.path / "requests"

    @property
    def requests(self) -> Requests:
        """What others ask of the present attempt."""
        if self._requests is None:
            self._requests = Requests(self)
        return self._requests

    @property
    def job(self) -> Job | None:
        """What job.json says now."""
        return Job.read(self.path)

    @property
    def places(self) -> dict[str, Path]:
        """What a person may look for when the task has ended, by name; only some of it may exist."""
        return {"log": self.log, "folder": self.path}

    def hold(self) -> None:
        """Take the task's lock. PilotError names the process that has it."""
        if not self.lock.acquire():
            raise self._held_by_another()
        self.notes += self.lock.notes
        self.lock.notes.clear()

    def queue(self, reason: str = "") -> None:
        """Mark the task as waiting for the worker. PilotError where another process runs it."""
        self._mark("queued", reason, process=None, exit_code=None, failures=0)

    def retire(self, reason: str, exit_code: ExitCode) -> None:
        """Mark a task that no process runs as stopped. PilotError where one does."""
        self._mark("stopped", reason, process=None, exit_code=int(exit_code))

    def wait_for(self, device: str) -> None:
        """Say that this process holds the task and waits for a device that another one uses."""
        by = os.environ.get(STARTED_BY, "shell")
        reason = f"waits for device {device}"
        self._mark("queued", reason, process=Identity.own(), device=device, by=by, exit_code=None)

    def _mark(self, status: Status, reason: str, **fields: Any) -> None:
        if not mark(self.path, self.lock, status, reason, **fields):
            raise self._held_by_another()

    def _held_by_another(self) -> PilotError:
        holder = Identity.parse(self.lock.holder().get("holder"))
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        given, remedy = f"{who} is running it", f"Follow it in {self.log}."
        return PilotError(f"{self.WORD} {self.name}", given, f"one process for each {self.WORD}", remedy)

    def begin_attempt(self, device: str | None = None) -> int:
        """Take the lock, count the attempt, and write "running". PilotError where another process runs the task."""
        self.hold()
        job = self.job or Job("queued")
        self._count(job.attempts + 1)
        times = {"queued": job.times.get("queued", time.time()), "started": time.time()}
        by = os.environ.get(STARTED_BY, "shell")
        Job("running", "", None, self.attempt, job.failures, device, by, Identity.own(), times).write(self.path)
        self.requests_folder.mkdir(exist_ok=True)
        self._requests = None
        self.requests.clear()
        for note in self.notes:
            self.events.append("notice", text=note)
        self.notes.clear()
        return self.attempt

    def _count(self, attempt: int) -> None:
        self.attempt = self.events.attempt = self.state.attempt = attempt

    def follow(self) -> None:
        """Take part in the attempt of another process of the same run: nothing is locked, nothing may be written."""
        self.writes = False

    def finish(self, status: Status, reason: str, exit_code: ExitCode, *, tell: bool = True) -> None:
        """Write how the attempt ended, in job.json and as the `end` event, and let go of the lock.

        tell: also whom the task's notifications name, once all of that is on disk.
        """
        if not self.writes:
            return
        job = self.job or Job("running", attempts=self.attempt)
        reason = redact(reason)
        if status == "done":
            self._publish()
        # What is still being written of the state must not come after the lock, over that of another attempt.
        for tell_it in (
            self.state.settle,
            lambda: self.events.append("end", status=status, reason=reason, exit_code=int(exit_code)),
        ):
            try:
                tell_it()
            except RunFailed as error:
                # A full disk must not keep job.json, which replaces a file of the same size, from telling the truth.
                print(error.message, file=sys.stderr)
        times = job.times | {"ended": time.time()}
        failures = 0 if status == "done" else job.failures
        job.change(status=status, reason=reason, exit_code=int(exit_code), failures=failures, times=times).write(
            self.path
        )
        if tell:
            self._tell(status, reason)
        self.events.close()
        self.lock.release()

    def _publish(self) -> None:
        """Put the result of a task that is done where people look for it; most leave it in their folder."""

    def _tell(self, status: Status, reason: str) -> None:
        """Tell outsiders how it ended; most tasks have nobody to tell."""


def claim(parent: Path, wanted: str) -> Path:
    """Make a folder of that name, or of the name with the next number; making it is what decides between two takers."""
    number = 1
    while True:
        ending = "" if number == 1 else f"-{number}"
        path = parent / f"{wanted[: LONGEST_NAME - len(ending)]}{ending}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        return path
