"""Which runs ended since somebody last asked. Used by the browser's notifications (js/notify.js), through the API."""

from __future__ import annotations

import time

from pydantic import BaseModel, Field

from controlpilot.views.run_index import index
from trainpilot.errors import ExitCode
from trainpilot.runs.job import Job
from trainpilot.workspace import Workspace

SETTLE = 3.0  # seconds an end has to stand: the worker puts a run that failed back into the queue within one
MOST = 20


class Ending(BaseModel):
    """One run that ended. status: done, failed or stopped."""

    name: str
    title: str
    status: str
    reason: str
    ended: float = Field(description="Unix seconds")


class Endings(BaseModel):
    """until: ask again with `after` of this."""

    until: float
    runs: list[Ending]


def endings(workspace: Workspace, after: float | None) -> Endings:
    """Runs whose last attempt ended after `after` and that nobody continues, the oldest first."""
    until = time.time() - SETTLE
    if after is None:
        return Endings(until=until, runs=[])
    rows = [row for row in index(workspace).rows()[0] if row.status in ("done", "failed", "stopped")]
    found = []
    for row in rows:
        ended = row.times.get("ended", 0.0)
        if not after < ended <= until:
            continue
        job = Job.read(workspace.outputs / row.name)
        if job is None or job.status != row.status or job.exit_code == ExitCode.PREEMPTED:
            continue
        title, reason = row.title or row.name, row.reason[:300]
        found.append(Ending(name=row.name, title=title, status=row.status, reason=reason, ended=ended))
    return Endings(until=until, runs=sorted(found, key=lambda one: one.ended)[-MOST:])
