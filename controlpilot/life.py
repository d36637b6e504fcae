"""Whether anything goes on in this pod: runs, jobs, transfers, a GPU that computes, somebody who looks.

Used by the courier's lookout, which gives what is found to controlpilot/idle.py. `mark_seen` is for the panel: it notes
that a person was there, in the secrets folder, where nobody else can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from controlpilot.auth import secret_files
from controlpilot.idle import Life
from controlpilot.run_jobs import RunJobs
from controlpilot.telemetry import Gpu, Nvml
from trainpilot.runs.job import Job
from trainpilot.runs.jobdir import jobdirs
from trainpilot.runs.queue import Queue
from trainpilot.workspace import Workspace

SEEN = "seen"
SEEN_EVERY = 15.0  # seconds between two notes that somebody is there
GPU_BUSY = 0.05  # share of the time; an idle desktop and the driver itself stay below
TRAFFIC = 300_000.0  # bytes a second; live pages and health checks stay below
TERMINALS = Path("/dev/pts")
_noted: dict[Path, float] = {}


def mark_seen(secrets: Path, ago: float = 0.0) -> None:
    """Note that a person was there `ago` seconds ago. Cheap: writes every quarter of a minute at most."""
    if ago > SEEN_EVERY or time.monotonic() - _noted.get(secrets, float("-inf")) < SEEN_EVERY:
        return
    _noted[secrets] = time.monotonic()
    path = secrets / SEEN
    try:
        os.utime(path)  # works on a full disk too
    except FileNotFoundError:
        secret_files.write(path, b"")


class LifeSigns:
    """Remembers what it saw, so that only news counts: a clock that is set, or a pod that slept, is none."""

    def __init__(
        self,
        workspace: Workspace,
        secrets: Path,
        runs: RunJobs,
        *,
        terminals: Path = TERMINALS,
        gpus: Callable[[], list[Gpu]] | None = None,
        received: Callable[[], int] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace, self._runs, self._seen, self._terminals = workspace, runs, secrets / SEEN, terminals
        nvml = Nvml()
        self._gpus = gpus or (lambda: nvml.read()[0])
        self._bytes = received or _traffic
        self._steady = steady
        self._before: dict[Path, float] = {}
        self._traffic = (steady(), self._bytes())

    def look(self) -> Life:
        """What goes on now, or went on since the last look."""
        return Life(work=list(self._work()), people=list(self._people()))

    def _work(self) -> Iterator[str]:
        order = Queue(self._workspace).read()
        for name, job in self._runs.now().items():
            if job.live or job.status == "running":  # the worker resumes one whose process died
                yield f"run {name} is at work"
            elif job.status == "queued" and not (order.paused or name in order.paused_runs):
                yield f"run {name} waits"
        for path in jobdirs(self._workspace):
            task = Job.read(path)
            if task is not None and (task.live or task.status == "queued"):
                yield f"job {path.name} is at work" if task.live else f"job {path.name} waits"
        for number, gpu in enumerate(self._gpus()):
            if gpu.load is not None and gpu.load >= GPU_BUSY:
                yield f"GPU {number} computes ({gpu.load:.0%})"
        if rate := self._transfer():
            yield f"a transfer of {rate / 1e6:.1f} MB/s"

    def _transfer(self) -> float:
        """Bytes a second since the last look, 0 where they are few."""
        now, count = self._steady(), self._bytes()
        (since, before), self._traffic = self._traffic, (now, count)
        rate = (count - before) / (now - since) if now > since else 0.0
        return rate if rate >= TRAFFIC else 0.0

    def _people(self) -> Iterator[str]:
        if self._news(self._seen, lambda found: found.st_mtime):
            yield "somebody uses the panel"
        # Reading moves a terminal's time of access: st_atime is when somebody last typed there.
        typed = [path for path in self._terminals.glob("[0-9]*") if self._news(path, lambda found: found.st_atime)]
        if typed:
            yield "somebody types in a shell"

    def _news(self, path: Path, when: Callable[[os.stat_result], float]) -> bool:
        try:
            moment = when(path.stat())
        except OSError:
            self._before[path] = 0.0  # nobody was ever there, or the terminal is closed
            return False
        before, self._before[path] = self._before.get(path), moment
        return before is not None and before != moment


def _traffic() -> int:
    """Bytes over all networks but the loopback, both ways."""
    return sum(n.bytes_recv + n.bytes_sent for name, n in psutil.net_io_counters(pernic=True).items() if name != "lo")
