"""The courier: runs the jobs that go to the network, as the user who may know the tokens; and keeps a lookout.

Each job is a process of its own, `trainpilot run FOLDER`, in its own session: it outlives a killed courier, and the
next one finds it again. Its tokens come through a descriptor, so that they stand in no environment, argument list,
log or job file. The lookout (controlpilot/lookout.py) tells people what happened and stops an idle pod: here, because
it speaks to the network with secrets too, and must not end with the panel.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlpilot.hub_tokens import HubTokens
from trainpilot.errors import PilotError
from trainpilot.runs.job import Job, explain
from trainpilot.runs.jobdir import jobdirs, resource_of
from trainpilot.runs.keeper import Keeper, Rules, trainer_command
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import monotonic
from trainpilot.runs.secrets import DESCRIPTOR, hand, without_tokens
from trainpilot.runs.trainer_process import NETWORK, TrainerProcess
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from controlpilot.lookout import Lookout

AT_ONCE = 2  # jobs; more would only share the same line


class Courier(Keeper):
    """The courier of a workspace. secrets: the folder of the saved tokens; lookout: makes the one that it keeps."""

    name = "courier"

    def __init__(
        self,
        workspace: Workspace,
        secrets: Path,
        *,
        command: Callable[[Path], list[str]] = trainer_command,
        rules: Rules | None = None,
        tell: Callable[[str], None] = print,
        lookout: Callable[[], Lookout] | None = None,
    ) -> None:
        super().__init__(workspace, command, rules or Rules(), tell)
        self._make_lookout = lookout
        self.lookout: Lookout | None = None
        self.tokens = HubTokens(secrets)
        self._resources: dict[Path, str | None] = {}

    def run(self, *, until_idle: bool = False) -> int:
        """As every keeper, with the lookout beside it. PilotError where another courier works here."""
        try:
            return super().run(until_idle=until_idle)
        finally:
            if self.lookout is not None:
                self.lookout.stop()

    def tick(self) -> None:
        """One look at everything; after the first one the lookout starts, now that no other courier has one."""
        super().tick()
        make, self._make_lookout = self._make_lookout, None
        if make is not None:
            threading.Thread(target=self._keep_lookout, args=(make,), name="start of the lookout", daemon=True).start()

    def _keep_lookout(self, make: Callable[[], Lookout]) -> None:
        """Beside the jobs, which need not wait for what it loads."""
        self.lookout = make()
        self.lookout.start()

    def _look(self) -> list[Path]:
        return [path for path in jobdirs(self.workspace) if self._resource(path) == "net"]

    def _resource(self, path: Path) -> str | None:
        if path not in self._resources:
            self._resources[path] = resource_of(path)
        return self._resources[path]

    def _candidates(self) -> list[Path]:
        waiting = []
        for path in self._look():
            job = Job.read(path) if path not in self.trainers else None
            if job is not None and job.status == "queued" and FolderLock(path / "run.lock").free():
                waiting.append((job.times.get("queued", 0.0), path))
        return [path for _, path in sorted(waiting)]

    def _start_waiting(self) -> None:
        for path in self._candidates():
            if self.not_before.get(path, 0.0) > monotonic():
                continue
            if len(self.trainers) >= AT_ONCE:
                others = ", ".join(sorted(other.name for other in self.trainers))
                explain(path, FolderLock(path / "run.lock"), f"waits for {others}")
                continue
            try:
                self.trainers[path] = self._begin(path)
            except (OSError, PilotError) as error:
                self._failed(path, Job.read(path) or Job("queued"), f"its process cannot be started: {error}")
                continue
            self.tell(f"{path.name}: started, process {self.trainers[path].identity.pid}")

    def _begin(self, path: Path) -> TrainerProcess:
        reading = hand(self.tokens.values())
        try:
            environment = without_tokens(os.environ) | {DESCRIPTOR: str(reading)}
            return TrainerProcess.start(
                path, NETWORK, self.command(path), by=self.name, environment=environment, descriptors=[reading]
            )
        finally:
            os.close(reading)

    def _state(self) -> dict[str, Any]:
        jobs = [{"job": path.name, "process": t.identity.as_dict()} for path, t in self.trainers.items()]
        return {"jobs": jobs}
