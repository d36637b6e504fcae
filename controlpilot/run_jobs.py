"""What job.json of every run says, for those who look again and again: only folders that changed are read.

A folder's own mtime changes whenever a file in it is replaced. Used by the courier's lookout (life.py, watch.py).
"""

from __future__ import annotations

import os
import time

from trainpilot.runs.job import Job
from trainpilot.workspace import Workspace

SETTLE = 2.0  # seconds after a change in which a second one may carry the same time


class RunJobs:
    """One look costs a stat for each run, and a read for each that lives."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[str, tuple[int, Job | None]] = {}

    def now(self) -> dict[str, Job]:
        """Every run that was ever queued or started, by name."""
        known: dict[str, tuple[int, Job | None]] = {}
        try:
            with os.scandir(self._workspace.outputs) as found:
                for entry in found:
                    if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                        continue
                    changed = entry.stat().st_mtime_ns
                    before = self._known.get(entry.name)
                    if before is not None and before[0] == changed:
                        known[entry.name] = before
                        continue
                    path = self._workspace.outputs / entry.name
                    job = Job.read(path) if (path / "run.toml").is_file() else None
                    settled = time.time() - changed / 1e9 > SETTLE
                    known[entry.name] = (changed if settled else 0, job)
        except FileNotFoundError:
            known = {}  # no outputs folder yet
        self._known = known
        return {name: job for name, (_, job) in known.items() if job is not None}
