"""Keeps the processes of long tasks: attaches to what lives, settles what ended, retries, watches heartbeats, leaves.

It holds no state that matters: everything is in the task folders, so that after its own kill -9 the next keeper finds
the live processes (pid, start time and boot) and resumes the dead ones. The worker and the courier are keepers; they
differ in what they start, when, and with what.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs import events
from trainpilot.runs.atomic import write_json
from trainpilot.runs.job import Job, Status, mark
from trainpilot.runs.jobdir import FILE as JOB_FILE
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity, boot_id, monotonic
from trainpilot.runs.state import heartbeat_age, read_state
from trainpilot.runs.stop import StopFlag, stop_grace
from trainpilot.runs.trainer_process import TrainerProcess
from trainpilot.workspace import Workspace

TICK = 0.2  # seconds between two looks at the trainers
PATIENCE = 5.0  # seconds after a look that failed
SCAN = 1.0  # seconds between two looks at all run folders
RETRIES = 3  # failures in a row, without a checkpoint in between, after which a run is given up
BACKOFF = (10.0, 60.0, 300.0)  # seconds before each retry
DUMP_SECONDS = 5.0  # for printing stacks before the kill
LEAVE_SHARE = 0.8  # of the grace: the rest is for the worker's own last words
TRAINING = "train"
LASTING = ("checkpoint", "file", "picture")  # events of what the next attempt need not do again


def trainer_command(run: Path) -> list[str]:
    """The command that runs or continues a run. -P: a folder named trainpilot elsewhere must not be imported."""
    return [sys.executable, "-P", "-m", "trainpilot", "run", str(run)]


def is_job(path: Path) -> bool:
    """Whether a task folder is a job's; else it is a run's."""
    return (path / JOB_FILE).is_file()


@dataclass(frozen=True)
class Rules:
    """Times of a worker, in seconds. slow_heartbeat is for phases other than training: loading, compiling, caching."""

    backoff: Sequence[float] = BACKOFF  # the last one is repeated
    heartbeat: float = 300.0
    slow_heartbeat: float = 1800.0
    dump: float = DUMP_SECONDS
    scan: float = SCAN
    cpu_jobs: int = 2  # that run at once
    measure: float = 3.0  # between two looks at the memory of GPUs, while a run waits


class Keeper(ABC):
    """name: of its lock and state file in jobs/; command: makes a task's argv; tell: one line for people."""

    name = "keeper"

    def __init__(
        self, workspace: Workspace, command: Callable[[Path], list[str]], rules: Rules, tell: Callable[[str], None]
    ) -> None:
        self.workspace, self.command, self.rules, self.tell = workspace, command, rules, tell
        self.path = workspace.jobs / f"{self.name}.json"
        self.trainers: dict[Path, TrainerProcess] = {}
        self.not_before: dict[Path, float] = {}  # monotonic; a new keeper tries at once
        self.stop = StopFlag()
        self._scanned = float("-inf")

    @abstractmethod
    def _look(self) -> list[Path]:
        """Take in what people have asked for; the task folders that are this keeper's."""

    @abstractmethod
    def _candidates(self) -> list[Path]:
        """Queued tasks that may start at some time, in order; those that a shell holds already are not ours."""

    @abstractmethod
    def _start_waiting(self) -> None:
        """Start what may start now."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What the panel should know of this keeper, beyond who it is."""

    def _device_of(self, job: Job) -> str:
        """What a task that was found alive uses."""
        return job.device or ""

    def run(self, *, until_idle: bool = False) -> int:
        """Work until a signal, or until nothing is left to do. PilotError where another one works here."""
        self.workspace.jobs.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.workspace.jobs / f"{self.name}.lock")
        if not lock.acquire():
            holder = Identity.parse(lock.holder().get("holder"))
            given = f"process {holder.pid} is one already" if holder else "there is one already"
            remedy = "Stop that one, or leave the work to it."
            where = f"{self.name} of {self.workspace.root}"
            raise PilotError(where, given, f"one {self.name} for each workspace", remedy)
        for note in lock.notes:
            self.tell(note)
        try:
            with self.stop:
                while not self.stop.poll():
                    try:
                        self.tick()
                    except OSError as error:
                        # A full disk or a volume that stalls is no reason to let go of the trainers.
                        self.tell(
                            f"the workspace cannot be read or written now, another try in {PATIENCE:.0f} s: {error}"
                        )
                        time.sleep(PATIENCE)
                    if until_idle and not self.trainers and not self._candidates():
                        break
                    time.sleep(TICK)
                else:
                    self._leave()
        finally:
            self._tell_state(working=False)
            lock.release()
        return int(ExitCode.DONE)

    def tick(self) -> None:
        """One look at everything."""
        for trainer in list(self.trainers.values()):
            if trainer.ended():
                self._settle(trainer)
            else:
                self._watch(trainer)
        if monotonic() - self._scanned < self.rules.scan:
            return
        for path in self._look():
            if path not in self.trainers:
                self._reconcile(path)
        self._start_waiting()
        self._tell_state()
        self._scanned = monotonic()

    # -- what the folders say -------------------------------------------------------------------------------------

    def _reconcile(self, path: Path) -> None:
        """Attach to a trainer that lives; put back into the queue what died or was pre-empted."""
        job = Job.read(path)
        if job is None or job.status in ("failed", "done"):
            return
        if job.process is not None and job.live:
            own, what = job.by == self.name, "job" if is_job(path) else "trainer"
            self.trainers[path] = TrainerProcess(path, self._device_of(job), job.process, own=own)
            self.tell(f"{path.name}: attached to its live {what}, process {job.process.pid}")
        elif job.status == "running" and FolderLock(path / "run.lock").free():
            self._after_end(path, job, None)
        elif job.status == "stopped" and job.exit_code == ExitCode.PREEMPTED:
            self._requeue(path, f"continues after: {job.reason}", failures=job.failures)

    def _settle(self, trainer: TrainerProcess) -> None:
        """A trainer has ended: forget it, and do what its exit code asks for."""
        path = trainer.run
        del self.trainers[path]
        self._scanned = float("-inf")
        job = Job.read(path) or Job("queued")
        ours = job.process is not None and job.process.pid == trainer.identity.pid
        if job.live and not ours:
            self.tell(f"{path.name}: process {trainer.identity.pid} found it running elsewhere and left")
        elif job.status in ("running", "queued"):
            # It died without a word, or before it could take the run: only the process's own exit code tells.
            why = "its heartbeat stood still" if trainer.dumped_at is not None else ""
            self._after_end(path, job, trainer.exit_code, why)
        elif job.exit_code == ExitCode.FAILED and trainer.own:
            self._failed(path, job, job.reason)
        elif job.exit_code == ExitCode.PREEMPTED:
            self._requeue(path, f"continues after: {job.reason}", failures=job.failures)
        else:
            self.tell(f"{path.name}: {job.status}{f': {job.reason}' if job.reason else ''}")

    def _after_end(self, path: Path, job: Job, code: int | None, why: str = "") -> None:
        """The end of a trainer that left no word in job.json. code: as of `Popen.returncode`, None where unknown."""
        if code == ExitCode.STOPPED:
            self._retire(path, "stopped", "stopped by a person before it began", code)
        elif code in (ExitCode.DONE, ExitCode.BAD_INPUT):
            self._retire(path, "failed", "ended before it began; log.txt says why", ExitCode.BAD_INPUT)
        elif code == ExitCode.PREEMPTED:
            self._requeue(path, "continues after a pre-emption", failures=job.failures)
        else:
            died = f"its process was killed by signal {-code}" if code is not None and code < 0 else "its process died"
            self._failed(path, job, why or died)

    def _failed(self, path: Path, job: Job, reason: str) -> None:
        """Try again later, unless it failed too often without getting anywhere."""
        began = job.status != "queued"
        failures = 1 if began and self._got_somewhere(path, job.attempts) else job.failures + 1
        if failures > RETRIES:
            again = f"run {path}" if is_job(path) else f"resume {path.name}"
            text = f"{reason} ({failures} times without getting further; `trainpilot {again}` tries again)"
            self._retire(path, "failed", text, ExitCode.FAILED, failures)
            return
        wait = self.rules.backoff[min(failures, len(self.rules.backoff)) - 1]
        text = f"retry {failures} of {RETRIES} after: {reason}"
        self._requeue(path, text, failures=failures, wait=wait)

    @staticmethod
    def _got_somewhere(path: Path, attempt: int) -> bool:
        """Whether the attempt left something behind that the next one need not do again."""
        past = events.history(path / "events.jsonl")
        return any(event["kind"] in LASTING and event.get("attempt") == attempt for event in past)

    def _requeue(self, path: Path, reason: str, *, failures: int, wait: float = 0.0) -> None:
        lock = FolderLock(path / "run.lock")
        if mark(path, lock, "queued", reason, process=None, exit_code=None, failures=failures):
            self.not_before[path] = monotonic() + wait
            self.tell(f"{path.name}: queued, {reason}{f', in {wait:.0f} s' if wait else ''}")

    def _retire(self, path: Path, status: Status, reason: str, code: int, failures: int = 0) -> None:
        lock = FolderLock(path / "run.lock")
        if mark(path, lock, status, reason, process=None, exit_code=code, failures=failures):
            self.tell(f"{path.name}: {status}: {reason}")

    # -- watching and leaving -------------------------------------------------------------------------------------

    def _watch(self, trainer: TrainerProcess) -> None:
        """A trainer whose heartbeat stands still prints its stacks, is killed, and counts as failed."""
        if trainer.dumped_at is not None:
            if monotonic() - trainer.dumped_at > self.rules.dump:
                trainer.kill()
            return
        state = read_state(trainer.run / "state.json") or {}
        silent = heartbeat_age(state)
        beating = (state.get("heartbeat") or {}).get("pid") == trainer.identity.pid
        silent = silent if beating and silent is not None else monotonic() - trainer.since
        allowed = self.rules.heartbeat if beating and state.get("phase") == TRAINING else self.rules.slow_heartbeat
        if silent > allowed and trainer.own:
            self.tell(
                f"{trainer.run.name}: no heartbeat for {silent:.0f} s; its stacks go to log.txt, then it is restarted"
            )
            trainer.dump()

    def _leave(self) -> None:
        """Ask all trainers to save, wait for them within the grace, and put them back into the queue."""
        own = [trainer for trainer in self.trainers.values() if trainer.own]
        for trainer in own:
            trainer.stop()
        deadline = monotonic() + LEAVE_SHARE * stop_grace()
        while any(not trainer.ended() for trainer in own) and monotonic() < deadline:
            time.sleep(TICK / 4)
        for trainer in own:
            if trainer.ended():
                self._settle(trainer)
            else:
                self.tell(
                    f"{trainer.run.name}: process {trainer.identity.pid} is still saving; the next worker finds it"
                )

    def _tell_state(self, working: bool = True) -> None:
        """Who works, on what; with a heartbeat. For the panel."""
        about = {"schema": 1, "working": working, "process": Identity.own().as_dict(), **self._state()}
        about["heartbeat"] = {"monotonic": monotonic(), "boot": boot_id()}
        write_json(self.path, about, durable=False)
