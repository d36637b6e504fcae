"""A run's folder: made once, opened by everybody, run by one process at a time.

`RunDir.create` makes it from a resolved configuration; `begin_attempt` takes its lock and `finish` writes what
became of it. The verbs, the trainer and the worker use it; the panel reads the same files.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode, PilotError, RunFailed
from trainpilot.runs import notify
from trainpilot.runs.events import EventLog
from trainpilot.runs.job import Job, Status, mark
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.requests import Requests
from trainpilot.runs.secrets import redact
from trainpilot.runs.state import StateFile
from trainpilot.runs.stop import stop_grace
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from trainpilot.config.merge import Resolved

LONGEST_NAME = 100
STARTED_BY = "PILOT_STARTED_BY"  # the worker sets it for the trainers it starts
_CONFIG = re.compile(r"run(?:\.(\d+))?\.toml")


class RunDir:
    """One run. Paths are absolute; `attempt` is 0 until `begin_attempt`, then counts from 1."""

    def __init__(self, path: Path, workspace: Workspace, resolved: Resolved) -> None:
        self.path, self.workspace, self.resolved = path, workspace, resolved
        self.attempt = 0
        self.writes = True  # false in the further processes of one run over several devices
        self.notes: list[str] = []
        self.lock = FolderLock(path / "run.lock")
        self.events = EventLog(path / "events.jsonl")
        self.state = StateFile(path / "state.json")
        self._requests: Requests | None = None

    @classmethod
    def create(cls, workspace: Workspace, resolved: Resolved, plan: Mapping[str, Any] | None = None) -> RunDir:
        """Make the folder and its run.toml. An existing name gets -2, -3 ...; `notes` says so, for printing.

        plan: `Plan.as_dict()`, kept as the first event.
        """
        check_writable(workspace)
        wanted = resolved.config.run.name or _invented(resolved.config)
        workspace.outputs.mkdir(parents=True, exist_ok=True)
        path = _claim(workspace.outputs, wanted)
        named = resolved.config.model_copy(deep=True)
        named.run.name = path.name
        source = resolved.sources.get("run.name", "default") if path.name == wanted else "made unique"
        resolved = type(resolved)(named, resolved.sources | {"run.name": source}, resolved.notes)
        run = cls(path, workspace, resolved)
        if path.name != wanted:
            run.notes.append(f"run {wanted} exists; this one is named {path.name}")
        for folder in (run.requests_folder, run.logs):
            folder.mkdir()
        _write_config(resolved, path / "run.toml")
        run._link(workspace.logs / "tb" / run.name, run.logs)
        if plan is not None:
            run.events.append("plan", **plan)
        return run

    @classmethod
    def open(cls, path: Path, workspace: Workspace | None = None) -> RunDir:
        """The run in a folder. PilotError where there is none."""
        from trainpilot.config.document import load

        path = path.expanduser().resolve()
        configs = configurations(path)
        if not configs:
            raise PilotError(path, "no run.toml in it", "a run folder", "Make one with `trainpilot train`.")
        if workspace is None:
            workspace = Workspace(path.parent.parent) if path.parent.name == "outputs" else Workspace.find()
        run = cls(path, workspace, load(configs[-1]))
        job = Job.read(path)
        run.attempt = run.events.attempt = run.state.attempt = job.attempts if job else 0
        return run

    @classmethod
    def find(cls, workspace: Workspace, given: str) -> RunDir:
        """A run by its name or its path."""
        from trainpilot.config.describe import did_you_mean

        for path in (workspace.outputs / given, Path(given).expanduser()):
            if configurations(path):
                return cls.open(path, workspace if path.parent == workspace.outputs else None)
        names = [path.name for path in folders(workspace)]
        remedy = did_you_mean(given, names, "Choose one of these, or name a run folder.")
        raise PilotError("run", given, ", ".join(names[-20:]) or f"none yet in {workspace.outputs}", remedy)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The configuration of the newest run*.toml."""
        return self.resolved.config

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def result(self) -> Path:
        """The finished LoRA."""
        return self.path / f"{self.name}.safetensors"

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

    def change(self, resolved: Resolved) -> Path:
        """Resume with changes: the configuration from the next attempt on, as run.2.toml, run.3.toml ..."""
        path = self.path / f"run.{len(configurations(self.path)) + 1}.toml"
        resolved.config.run.name = self.name
        _write_config(resolved, path)
        self.resolved = resolved
        return path

    def hold(self) -> None:
        """Take the run's lock. PilotError names the process that has it."""
        if not self.lock.acquire():
            raise self._held_by_another()
        self.notes += self.lock.notes
        self.lock.notes.clear()

    def queue(self, reason: str = "") -> None:
        """Mark the run as waiting for the worker. PilotError where another process runs it."""
        self._mark("queued", reason, process=None, exit_code=None, failures=0)

    def retire(self, reason: str, exit_code: ExitCode) -> None:
        """Mark a run that no process runs as stopped. PilotError where one does."""
        self._mark("stopped", reason, process=None, exit_code=int(exit_code))

    def wait_for(self, device: str) -> None:
        """Say that this process holds the run and waits for a device that another run uses."""
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
        return PilotError(f"run {self.name}", given, "one process for each run", remedy)

    def begin_attempt(self, device: str | None = None) -> int:
        """Take the lock, count the attempt, and write "running". PilotError where another process runs the run."""
        self.hold()
        job = self.job or Job("queued")
        self.attempt = self.events.attempt = self.state.attempt = job.attempts + 1
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

    def follow(self) -> None:
        """Take part in the attempt of another process of the same run: nothing is locked, nothing may be written."""
        self.writes = False

    def finish(self, status: Status, reason: str, exit_code: ExitCode, *, tell: bool = True) -> None:
        """Write how the attempt ended, in job.json and as the `end` event, link the result, and let go of the lock.

        tell: also whom `notifications` names, once all of that is on disk.
        """
        if not self.writes:
            return
        job = self.job or Job("running", attempts=self.attempt)
        reason = redact(reason)
        if status == "done" and self.result.is_file():
            self._link(self.workspace.loras / self.result.name, self.result)
        try:
            self.events.append("end", status=status, reason=reason, exit_code=int(exit_code))
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

    def _tell(self, status: Status, reason: str) -> None:
        """step: of the newest checkpoint, which is the last step where the run ended well or was stopped."""
        steps = [int(marker.parent.name[5:]) for marker in self.checkpoints.glob("step-*/COMMITTED")]
        message = {"run": self.name, "status": status, "reason": reason, "step": max(steps, default=0)}
        try:
            # A stop has only the grace; a run that ended by itself has the whole time-out.
            timeout = min(notify.TIMEOUT, stop_grace() / 4) if status == "stopped" else notify.TIMEOUT
            failure = notify.tell(self.config.notifications.webhook_env, message, timeout=timeout)
            if failure:
                self.events.append("notice", text=failure)
        except PilotError as error:  # a full disk, or a grace that is none; what matters is on disk already
            failure = error.message
        if failure:
            print(failure, file=sys.stderr)

    def _link(self, link: Path, target: Path) -> None:
        """Make a relative link, so that the workspace can be moved; a file of the user's in its place stays."""
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink():
                link.unlink()
            link.symlink_to(
                Path(*[".."] * len(link.parent.relative_to(self.workspace.root).parts))
                / target.relative_to(self.workspace.root)
            )
        except (OSError, ValueError) as error:
            self.events.append("notice", text=f"{link} could not be made a link to {target}: {error}")


def configurations(folder: Path) -> list[Path]:
    """run.toml, run.2.toml, ... of a folder, in order."""
    if not folder.is_dir():
        return []
    found = [(int(match[1] or 1), path) for path in folder.iterdir() if (match := _CONFIG.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def folders(workspace: Workspace) -> list[Path]:
    """All run folders of a workspace, by name."""
    if not workspace.outputs.is_dir():
        return []
    return sorted(path for path in workspace.outputs.iterdir() if (path / "run.toml").is_file())


def _write_config(resolved: Resolved, path: Path) -> None:
    from trainpilot.config.document import write_toml

    write_toml(resolved, path)


def _invented(config: RunConfig) -> str:
    """A name from the first dataset (without its repeats) and the time."""
    folder = Path(config.datasets[0].path).name if config.datasets else ""
    subject = re.sub(r"[^\w-]+", "-", re.sub(r"^\d+_", "", folder)).strip("-_")[:60]
    return f"{subject or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"


def _claim(outputs: Path, wanted: str) -> Path:
    """Make a folder of that name, or of the name with the next number; making it is what decides between two takers."""
    number = 1
    while True:
        ending = "" if number == 1 else f"-{number}"
        path = outputs / f"{wanted[: LONGEST_NAME - len(ending)]}{ending}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        return path
