"""A run's folder: made once, opened by everybody, run by one process at a time.

`RunDir.create` makes it from a resolved configuration; its life, from the lock to the last word, is that of every
long task (`taskdir`). The verbs, the trainer and the worker use it; the panel reads the same files.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError
from trainpilot.runs import notify
from trainpilot.runs.job import Job, Status
from trainpilot.runs.stop import stop_grace
from trainpilot.runs.taskdir import TaskDir, claim
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from trainpilot.config.merge import Resolved

GUIDE_OUTPUT = "lora_training/output"  # where guide 001 looks for pictures and checkpoints; links, where it is there
_CONFIG = re.compile(r"run(?:\.(\d+))?\.toml")


class RunDir(TaskDir):
    """One training run, in outputs/."""

    WORD: ClassVar[str] = "run"

    def __init__(self, path: Path, workspace: Workspace, resolved: Resolved) -> None:
        super().__init__(path, workspace)
        self.resolved = resolved

    @classmethod
    def create(cls, workspace: Workspace, resolved: Resolved, plan: Mapping[str, Any] | None = None) -> RunDir:
        """Make the folder and its run.toml. An existing name gets -2, -3 ...; `notes` says so, for printing.

        plan: `Plan.as_dict()`, kept as the first event.
        """
        check_writable(workspace)
        wanted = resolved.config.run.name or _invented(resolved.config)
        workspace.outputs.mkdir(parents=True, exist_ok=True)
        path = claim(workspace.outputs, wanted)
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
        if run._shown_in is not None:
            run.samples.mkdir()
            run._link(run._shown_in / "samples", run.samples)
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
        run._count(job.attempts if job else 0)
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
    def result(self) -> Path:
        """The finished LoRA."""
        return self.path / f"{self.name}.safetensors"

    @property
    def places(self) -> dict[str, Path]:
        return {"result": self.result, "samples": self.samples, "report": self.report, **super().places}

    def change(self, resolved: Resolved) -> Path:
        """Resume with changes: the configuration from the next attempt on, as run.2.toml, run.3.toml ..."""
        path = self.path / f"run.{len(configurations(self.path)) + 1}.toml"
        resolved.config.run.name = self.name
        _write_config(resolved, path)
        self.resolved = resolved
        return path

    def show_checkpoint(self, lora: Path) -> None:
        """Link the newest checkpoint's LoRA under the name that guide 001 resumes from.

        A folder that was asked for also gets the checkpoints, as guide 002 has them: checkpoint-500 and so on.
        """
        folder = self._shown_in
        if folder is None:
            return
        self._link(folder / f"{self.name}_checkpoint.safetensors", lora)
        if self.config.saving.links:
            for gone in folder.glob("checkpoint-*"):
                if gone.is_symlink() and not gone.exists():
                    gone.unlink(missing_ok=True)
            self._link(folder / f"checkpoint-{int(lora.parent.name.removeprefix('step-'))}", lora.parent)

    @property
    def _shown_in(self) -> Path | None:
        """The folder that gets links to what the run makes, where there is one."""
        if self.config.saving.links:
            return self.workspace.root / self.config.saving.links
        guide = self.workspace.root / GUIDE_OUTPUT
        return guide if guide.is_dir() else None

    def _publish(self) -> None:
        if self.result.is_file():
            self._link(self.workspace.loras / self.result.name, self.result)
            if self._shown_in is not None:
                self._link(self._shown_in / self.result.name, self.result)
            if self.config.saving.hub_model_id:
                self._offer()

    def _offer(self) -> None:
        """Queue the job that publishes the result: the run itself has no token, and its end does not wait for a net."""
        from trainpilot.runs.jobdir import JobDir

        try:
            params = {"lora": self.name, "repo": self.config.saving.hub_model_id, "update": True}
            job = JobDir.create(self.workspace, "publish", params)
            told = f"{self.result.name} goes to {self.config.saving.hub_model_id}, private: job {job.name}"
            told += f"; without a courier that runs it: trainpilot run {job.path}"
        except (PilotError, OSError) as error:
            told = f"the job that publishes {self.result.name} could not be queued: {error}"
        self.events.append("notice", text=told)
        print(told)

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
        """Make a link, a relative one inside the workspace, which can be moved; a file of the user's stays."""
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_symlink():
                link.unlink()
            inside = link.is_relative_to(self.workspace.root)
            link.symlink_to(os.path.relpath(target, link.parent) if inside else target)
        except OSError as error:
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
