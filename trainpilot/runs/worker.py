"""The worker: runs what is queued, one run on each device, and leaves true files behind whatever dies.

It holds no state that matters: everything is in the run folders, so that after its own kill -9 the next worker finds
the live trainers (pid, start time and boot) and resumes the dead ones from their last checkpoint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs import events
from trainpilot.runs.atomic import write_json
from trainpilot.runs.devices import devices
from trainpilot.runs.job import Job, Status, mark
from trainpilot.runs.locks import FolderLock, device_lock
from trainpilot.runs.process import Identity, boot_id, monotonic
from trainpilot.runs.queue import Order, Queue
from trainpilot.runs.rundir import folders
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


def trainer_command(run: Path) -> list[str]:
    """The command that runs or continues a run. -P: a folder named trainpilot elsewhere must not be imported."""
    return [sys.executable, "-P", "-m", "trainpilot", "run", str(run)]


@dataclass(frozen=True)
class Rules:
    """Times of a worker, in seconds. slow_heartbeat is for phases other than training: loading, compiling, caching."""

    backoff: Sequence[float] = BACKOFF  # the last one is repeated
    heartbeat: float = 300.0
    slow_heartbeat: float = 1800.0
    dump: float = DUMP_SECONDS
    scan: float = SCAN


@dataclass
class Worker:
    """The worker of a workspace. command: makes the trainer's argv from the run folder; tell: one line for people."""

    workspace: Workspace
    command: Callable[[Path], list[str]] = trainer_command
    devices: Sequence[str] = ()
    rules: Rules = field(default_factory=Rules)
    tell: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.queue = Queue(self.workspace)
        self.path = self.workspace.jobs / "worker.json"
        self.trainers: dict[Path, TrainerProcess] = {}
        self.not_before: dict[Path, float] = {}  # monotonic; a new worker tries at once
        self.order = Order()
        self.stop = StopFlag()
        self._scanned = float("-inf")
        if not self.devices:
            self.devices, why = devices()
            self.tell(f"devices: {', '.join(self.devices)} ({why})")

    def run(self, *, until_idle: bool = False) -> int:
        """Work until a signal, or until nothing is left to do. PilotError where another worker works here."""
        self.workspace.jobs.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.workspace.jobs / "worker.lock")
        if not lock.acquire():
            holder = Identity.parse(lock.holder().get("holder"))
            given = f"process {holder.pid} is one already" if holder else "there is one already"
            remedy = "Stop that one, or leave the work to it."
            raise PilotError(f"worker of {self.workspace.root}", given, "one worker for each workspace", remedy)
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
        self.order = self.queue.apply()
        for path in folders(self.workspace):
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
            own = job.by == "worker"
            self.trainers[path] = TrainerProcess(path, job.device or self.devices[0], job.process, own=own)
            self.tell(f"{path.name}: attached to its live trainer, process {job.process.pid}")
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
            text = f"{reason} ({failures} times without a new checkpoint; `trainpilot resume {path.name}` tries again)"
            self._retire(path, "failed", text, ExitCode.FAILED, failures)
            return
        wait = self.rules.backoff[min(failures, len(self.rules.backoff)) - 1]
        text = f"retry {failures} of {RETRIES} after: {reason}"
        self._requeue(path, text, failures=failures, wait=wait)

    @staticmethod
    def _got_somewhere(path: Path, attempt: int) -> bool:
        """Whether the attempt wrote a checkpoint."""
        past = events.history(path / "events.jsonl")
        return any(event["kind"] == "checkpoint" and event.get("attempt") == attempt for event in past)

    def _requeue(self, path: Path, reason: str, *, failures: int, wait: float = 0.0) -> None:
        lock = FolderLock(path / "run.lock")
        if mark(path, lock, "queued", reason, process=None, exit_code=None, failures=failures):
            self.not_before[path] = monotonic() + wait
            self.tell(f"{path.name}: queued, {reason}{f', in {wait:.0f} s' if wait else ''}")

    def _retire(self, path: Path, status: Status, reason: str, code: int, failures: int = 0) -> None:
        lock = FolderLock(path / "run.lock")
        if mark(path, lock, status, reason, process=None, exit_code=code, failures=failures):
            self.tell(f"{path.name}: {status}: {reason}")

    # -- starting -------------------------------------------------------------------------------------------------

    def _candidates(self) -> list[Path]:
        """Queued runs that may start at some time, in order; those that a shell holds already are not ours."""
        names = [] if self.order.paused else self.order.sorted(self.queue.waiting())
        paths = [self.workspace.outputs / name for name in names if name not in self.order.paused_runs]
        return [p for p in paths if p not in self.trainers and FolderLock(p / "run.lock").free()]

    def _start_waiting(self) -> None:
        used = {trainer.device for trainer in self.trainers.values()}
        free = [device for device in self.devices if device not in used and device_lock(device).free()]
        for path in self._candidates():
            if not free:
                return
            if self.not_before.get(path, 0.0) > monotonic():
                continue
            device = free.pop(0)
            try:
                trainer = TrainerProcess.start(path, device, self.command(path))
            except OSError as error:
                self._failed(path, Job.read(path) or Job("queued"), f"its process cannot be started: {error}")
                continue
            self.trainers[path] = trainer
            self.tell(f"{path.name}: started on {device}, process {trainer.identity.pid}")

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
        """worker.json, for the panel: who works, on what; with a heartbeat."""
        trainers = [
            {"run": t.run.name, "device": t.device, "process": t.identity.as_dict()} for t in self.trainers.values()
        ]
        write_json(
            self.path,
            {
                "schema": 1,
                "working": working,
                "process": Identity.own().as_dict(),
                "devices": list(self.devices),
                "trainers": trainers,
                "heartbeat": {"monotonic": monotonic(), "boot": boot_id()},
            },
            durable=False,
        )
