"""The worker: runs what is queued, one run on each device; jobs beside them, which give way to training.

Of the jobs it takes those that need a GPU (one device, like a run, but never before a run that waits, and leaving for
one that comes) and those that need the processor only (a few at once). Network jobs are the courier's.
A run waits while other programs hold the GPU memory that its plan asks for, unless a person wants it to start anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainpilot.runs.devices import CPU
from trainpilot.runs.devices import devices as present_devices
from trainpilot.runs.gpu_memory import Memory, memories, needed, shortage
from trainpilot.runs.job import Job, explain
from trainpilot.runs.jobdir import jobdirs, resource_of
from trainpilot.runs.keeper import Keeper, Rules, is_job, trainer_command
from trainpilot.runs.locks import FolderLock, device_lock
from trainpilot.runs.process import monotonic
from trainpilot.runs.queue import Order, Queue
from trainpilot.runs.rundir import folders
from trainpilot.runs.trainer_process import CORES, TrainerProcess
from trainpilot.workspace import Workspace

__all__ = ["Rules", "Worker", "trainer_command"]


class Worker(Keeper):
    """The worker of a workspace. command: makes the trainer's argv from the task's folder."""

    name = "worker"

    def __init__(
        self,
        workspace: Workspace,
        command: Callable[[Path], list[str]] = trainer_command,
        devices: Sequence[str] = (),
        rules: Rules | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        super().__init__(workspace, command, rules or Rules(), tell)
        self.queue = Queue(workspace)
        self.order = Order()
        self.devices = devices
        self.resources: dict[Path, str | None] = {}  # of each job; its job.toml never changes
        self.short: dict[Path, str] = {}  # runs that wait for memory of a device, and why
        self.needs: dict[Path, int | None] = {}  # bytes that the plan of each waiting run estimates
        self.memories: dict[str, Memory] = {}
        self._measured = float("-inf")
        if not devices:
            self.devices, why = present_devices()
            tell(f"devices: {', '.join(self.devices)} ({why})")

    # -- what is ours ---------------------------------------------------------------------------------------------

    def _look(self) -> list[Path]:
        self.order = self.queue.apply()
        return folders(self.workspace) + self._jobs()

    def _jobs(self) -> list[Path]:
        return [path for path in jobdirs(self.workspace) if self._resource(path) in ("gpu", "cpu")]

    def _resource(self, path: Path) -> str | None:
        if path not in self.resources:
            self.resources[path] = resource_of(path)
        return self.resources[path]

    def _device_of(self, job: Job) -> str:
        return job.device or CORES

    def _candidates(self) -> list[Path]:
        return self._runs() + self._queued_jobs()

    def _runs(self) -> list[Path]:
        names = [] if self.order.paused else self.order.sorted(self.queue.waiting())
        paths = [self.workspace.outputs / name for name in names if name not in self.order.paused_runs]
        return [p for p in paths if p not in self.trainers and FolderLock(p / "run.lock").free()]

    def _queued_jobs(self) -> list[Path]:
        """Oldest first. The queue's pauses are those of training: a test of a LoRA may go on meanwhile."""
        waiting = []
        for path in self._jobs():
            job = Job.read(path) if path not in self.trainers else None
            if job is not None and job.status == "queued" and FolderLock(path / "run.lock").free():
                waiting.append((job.times.get("queued", 0.0), path))
        return [path for _, path in sorted(waiting)]

    # -- starting -------------------------------------------------------------------------------------------------

    def _start_waiting(self) -> None:
        used = {trainer.device for trainer in self.trainers.values()}
        free = [device for device in self.devices if device not in used and device_lock(device).free()]
        runs = self._runs()
        self._measure(runs)
        for path in runs:
            device = next((one for one in free if not self._shortage(path, one)), None)
            if device is not None and self._due(path) and self._start(path, device):
                free.remove(device)
        # A run that waits here, or in a shell for a device that a job uses, goes before every job. One that waits for
        # memory that others hold keeps nobody from working.
        waiting = [path for path in runs if path not in self.trainers and path not in self.short]
        ahead = [path.name for path in waiting] + self._waiting_in_shells()
        ready = [path.name for path in waiting if self._due(path)] + self._waiting_in_shells()
        if ready:
            self._make_way(ready[0])
        for path in filter(self._due, self._queued_jobs()):
            if self._resource(path) == "cpu":
                if sum(trainer.device == CORES for trainer in self.trainers.values()) < self.rules.cpu_jobs:
                    self._start(path, CORES)
                else:
                    self._explain(path, "waits for a job before it")
            elif ahead:
                self._explain(path, f"waits: training goes first, and run {ahead[0]} waits for a device")
            elif free:
                if self._start(path, free[0]):
                    free.pop(0)
            else:
                self._explain(path, f"waits for {self._users()}")

    def _measure(self, runs: list[Path]) -> None:
        """Find the runs for which no device has room, and say so; only while some run waits."""
        self.needs = {path: self.needs[path] if path in self.needs else needed(path) for path in runs}
        gpus = [device for device in self.devices if device != CPU]
        if any(self.needs.values()) and gpus and monotonic() - self._measured >= self.rules.measure:
            self.memories, self._measured = memories(), monotonic()
        training = {trainer.device for path, trainer in self.trainers.items() if not is_job(path)}
        short: dict[Path, str] = {}
        for path in runs:
            reasons = [self._shortage(path, device) for device in self.devices if device not in training]
            if reasons and all(reasons):
                short[path] = "; ".join(dict.fromkeys(reasons))
            if short.get(path, "") != self.short.get(path, ""):
                self._explain(path, short.get(path, ""))
                self.tell(f"{path.name}: {short.get(path, 'has room now')}")
        self.short = short

    def _shortage(self, path: Path, device: str) -> str:
        """Why a run would find too little memory on a device; "" where it would not, or shall start anyway."""
        if path.name in self.order.anyway:
            return ""
        memory = self.memories.get(device)
        own = {trainer.identity.pid for trainer in self.trainers.values() if trainer.device == device}
        if memory is not None and own and not own & {holder.pid for holder in memory.holders}:
            # What our own job holds there cannot be told from what others hold: the last verdict stands until it ends.
            return self.short.get(path, "")
        return shortage(self.needs.get(path), memory, own)

    def _due(self, path: Path) -> bool:
        return self.not_before.get(path, 0.0) <= monotonic()

    def _start(self, path: Path, device: str) -> bool:
        try:
            trainer = TrainerProcess.start(path, device, self.command(path))
        except OSError as error:
            self._failed(path, Job.read(path) or Job("queued"), f"its process cannot be started: {error}")
            return False
        self.trainers[path] = trainer
        self.tell(f"{path.name}: started on {device}, process {trainer.identity.pid}")
        return True

    def _waiting_in_shells(self) -> list[str]:
        """Runs that a shell has begun and that wait, alive, for a device."""
        found = []
        for path in self.trainers:
            job = None if is_job(path) else Job.read(path)
            if job is not None and job.status == "queued" and job.live:
                found.append(path.name)
        return found

    def _make_way(self, run: str) -> None:
        """Ask one job on a device to leave for a run; it goes back into the queue with what it has."""
        jobs = [t for path, t in self.trainers.items() if is_job(path) and t.device in self.devices and t.own]
        if jobs and not any(trainer.leaving for trainer in jobs):
            jobs[0].stop()
            self.tell(f"{jobs[0].run.name}: leaves {jobs[0].device} to run {run}, and continues after it")

    def _users(self) -> str:
        users = {t.device: t.run.name for t in self.trainers.values() if t.device in self.devices}
        return ", ".join(f"{device} ({users.get(device, 'used outside the queue')})" for device in self.devices)

    def _explain(self, path: Path, reason: str) -> None:
        explain(path, FolderLock(path / "run.lock"), reason)

    def _state(self) -> dict[str, Any]:
        def shown(word: str, jobs: bool) -> list[dict[str, Any]]:
            return [
                {word: t.run.name, "device": t.device, "process": t.identity.as_dict()}
                for path, t in self.trainers.items()
                if is_job(path) == jobs
            ]

        return {"devices": list(self.devices), "trainers": shown("run", False), "jobs": shown("job", True)}
