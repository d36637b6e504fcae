"""Jobs as pages and API show them: what each does, how far it is, why it waits, and what can be done about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Entry, Trash
from trainpilot.errors import ExitCode, PilotError
from trainpilot.jobs import kinds
from trainpilot.runs.atomic import read_json
from trainpilot.runs.job import Job
from trainpilot.runs.jobdir import FILE, JobDir, jobdirs, read_job
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.requests import ask
from trainpilot.runs.state import read_state
from trainpilot.workspace import Workspace

_ID = re.compile(r"[a-z][a-z0-9-]{0,99}")
_MADE = re.compile(r"-(\d{8}-\d{6})(?:-(\d+))?$")
MOST = 200  # jobs looked at in one answer, the newest ones
LIVE = ("queued", "running", "interrupted")
Do = Literal["cancel", "resume"]


class JobRow(BaseModel):
    """One job. Times are unix seconds; step and of count in `unit` (bytes of a download, pictures of a test)."""

    id: str
    kind: str
    label: str = Field(description="What the kind is called")
    resource: str
    title: str
    status: str = Field(description="queued, running, interrupted, stopped, failed or done")
    reason: str
    phase: str = ""
    step: int = 0
    of: int = 0
    unit: str = ""
    rate: float | None = Field(default=None, description="Units a second")
    eta: float | None = Field(default=None, description="Seconds left")
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    can_cancel: bool = False
    can_resume: bool = False
    nobody_works: str = Field(default="", description="Where a job waits and nobody is there to take it: what to do")
    facts: dict[str, Any] = Field({}, description="What the kind says beyond: file, files, files_done ...")


class JobList(BaseModel):
    jobs: list[JobRow] = Field(description="The newest first")
    total: int


def listing(workspace: Workspace, kind: str = "", *, live: bool = False) -> JobList:
    """The newest jobs, of one kind or all; live: only those that wait or run."""
    folders = [path for path in jobdirs(workspace) if not kind or path.name.startswith(f"{kind}-")]
    rows = [row for path in _newest(folders) if (row := _row(workspace, path)) and (not kind or row.kind == kind)]
    rows = [row for row in rows if not live or row.status in LIVE]
    return JobList(jobs=sorted(rows, key=lambda row: row.created, reverse=True), total=len(folders))


def _newest(folders: list[Path]) -> list[Path]:
    """By the time in the name, which every job's has."""

    def made(path: Path) -> tuple[str, int]:
        match = _MADE.search(path.name)
        return (match[1], int(match[2] or 1)) if match else ("", 0)

    return sorted(folders, key=made, reverse=True)[:MOST]


def folder_of(workspace: Workspace, ident: str) -> Path:
    """The folder of a job by its id. NotFound where there is none, or the id could not be one."""
    path = workspace.jobs / ident
    if not _ID.fullmatch(ident) or path.is_symlink() or not (path / FILE).is_file():
        raise NotFound("job", repr(ident[:100]), "the id of a job", "It may be in the trash. See the list of jobs.")
    return path


def one(workspace: Workspace, ident: str) -> JobRow:
    """One job. NotFound as above."""
    path = folder_of(workspace, ident)
    row = _row(workspace, path)
    if row is None:
        read_job(path)  # raises what is wrong with it
        raise NotFound("job", ident, "a job that can be read", "Create it again.")
    return row


def act(workspace: Workspace, ident: str, do: Do) -> JobRow:
    """Cancel a job that waits or runs, or put a stopped, failed or interrupted one back into the queue."""
    row = one(workspace, ident)
    path = folder_of(workspace, ident)
    if do == "cancel":
        if not row.can_cancel:
            raise Conflict(f"job {ident}", row.status, "a job that waits or runs", "There is nothing to cancel.")
        if row.status == "running":
            ask(path, "stop")
        else:
            JobDir.open(path, workspace).retire("cancelled by a person", ExitCode.STOPPED)
    else:
        if not row.can_resume:
            raise Conflict(f"job {ident}", row.status, "one that was stopped or failed", "Look at the list of jobs.")
        JobDir.open(path, workspace).queue("continues")
    return one(workspace, ident)


def trash(workspace: Workspace, ident: str) -> Entry:
    """Move a job that nobody works on into the trash; Trash.restore undoes it. Conflict while it runs."""
    path = folder_of(workspace, ident)
    if not FolderLock(path / "run.lock").free():
        raise Conflict(f"job {ident}", "it runs", "a job that has ended", "Cancel it first.")
    return Trash(workspace).move([path], f"job {ident}")


def _row(workspace: Workspace, path: Path) -> JobRow | None:
    """None for a folder that is no job of this version: one bad folder must not hide the others."""
    try:
        tables = read_job(path)
    except PilotError:
        return None
    kind = kinds().get(str(tables.get("kind")))
    job = Job.read(path) or Job("queued")
    status = job.view
    state = (read_state(path / "state.json") or {}) if status != "queued" else {}
    state = state if state.get("attempt") == job.attempts else {}
    known = {"phase", "step", "of", "unit", "rate", "eta", "t", "attempt", "heartbeat", "epoch"}
    running = status == "running"
    resource = kind.RESOURCE if kind else str(tables.get("resource", ""))
    return JobRow(
        id=path.name,
        kind=str(tables.get("kind", "")),
        label=kind.LABEL if kind else str(tables.get("kind", "")),
        resource=resource,
        title=str(tables.get("title", "")),
        status=status,
        reason=job.reason,
        phase=str(state.get("phase") or ""),
        step=int(state.get("step") or 0),
        of=int(state.get("of") or 0),
        unit=str(state.get("unit") or ""),
        rate=state.get("rate") if running else None,
        eta=state.get("eta") if running else None,
        created=float(tables.get("created", 0)),
        started=job.times.get("started"),
        ended=job.times.get("ended"),
        attempts=job.attempts,
        can_cancel=status in LIVE,
        can_resume=kind is not None and status in ("stopped", "failed", "interrupted"),
        nobody_works=_nobody(workspace, resource) if status == "queued" else "",
        facts={name: value for name, value in state.items() if name not in known},
    )


def _nobody(workspace: Workspace, resource: str) -> str:
    """What to do where no process would take a waiting job."""
    keeper, command = ("courier", "controlpilot courier") if resource == "net" else ("worker", "trainpilot worker")
    about = read_json(workspace.jobs / f"{keeper}.json") or {}
    process = Identity.parse(about.get("process"))
    if process is not None and process.alive():
        return ""
    return f"The {keeper} does not run: start it on the Services page, or in a shell: {command}"
