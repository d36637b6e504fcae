"""job.json: what became of a job, written by whoever runs it while holding its lock, and true after any crash.

A process that dies leaves "running" behind; `Job.view` compares that with the process table and says "interrupted".
Used by the run folder, the queue, the worker and the panel.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from trainpilot.runs.atomic import read_json, write_json
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.secrets import redact

Status = Literal["queued", "running", "stopped", "failed", "done"]
FILE = "job.json"


def mark(folder: Path, lock: FolderLock, status: Status, reason: str, **fields: Any) -> bool:
    """Write a status into job.json, holding the lock at least for that moment; False where another process holds it."""
    held = lock.held
    if not lock.acquire():
        return False
    try:
        job = Job.read(folder) or Job("queued")
        times = job.times | ({"queued": time.time()} if status == "queued" else {})
        job.change(status=status, reason=redact(reason), times=times, **fields).write(folder)
    finally:
        if not held:
            lock.release()
    return True


def explain(folder: Path, lock: FolderLock, reason: str) -> None:
    """Say why a queued task still waits; its place by age stays, and nothing is written that stands there already."""
    job = Job.read(folder)
    if job is None or job.status != "queued" or job.reason == reason or not lock.acquire():
        return
    try:
        job = Job.read(folder)
        if job is not None and job.status == "queued":
            job.change(reason=reason).write(folder)
    finally:
        lock.release()


@dataclass(frozen=True)
class Job:
    """One job.json. Times are unix seconds; process is the one that runs it, or ran it last."""

    status: Status
    reason: str = ""
    exit_code: int | None = None
    attempts: int = 0
    failures: int = 0  # attempts in a row that failed without progress; decides when to give up
    device: str | None = None
    by: str = ""  # "worker" or "shell": who started the last attempt; a failure in a shell is its owner's to repeat
    process: Identity | None = None
    times: dict[str, float] = field(default_factory=dict)  # queued, started, ended

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """The job of a folder; None where nothing has run or queued it yet, or the file is damaged."""
        value = read_json(folder / FILE)
        if value is None or value.get("status") not in get_args(Status):
            return None
        code = value.get("exit_code")
        return cls(
            status=value["status"],
            reason=str(value.get("reason", "")),
            exit_code=code if isinstance(code, int) else None,
            attempts=int(value.get("attempts", 0)),
            failures=int(value.get("failures", 0)),
            device=value.get("device"),
            by=str(value.get("by", "")),
            process=Identity.parse(value.get("process")),
            times=dict(value.get("times", {})),
        )

    def write(self, folder: Path) -> None:
        """Replace the folder's job.json. Only for the holder of its lock."""
        write_json(folder / FILE, {"schema": 1, **asdict(self)})

    def change(self, **fields: Any) -> Job:
        return replace(self, **fields)

    @property
    def live(self) -> bool:
        """Whether the process that the file names runs at this moment, on this machine."""
        return self.status in ("running", "queued") and self.process is not None and self.process.alive()

    @property
    def view(self) -> str:
        """The status as it is: one of `Status`, or "interrupted" where it says running and no such process lives."""
        return "interrupted" if self.status == "running" and not self.live else self.status
