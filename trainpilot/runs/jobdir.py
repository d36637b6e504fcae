"""A job's folder: any long task that is no training run, in jobs/<id>/, with the same files as a run.

`JobDir.create` checks the parameters against the kind's own model (`trainpilot.jobs`) and writes job.toml, once. The
panel and the verbs create; the worker (gpu, cpu) and the courier (net) run them through `trainpilot run FOLDER`.
"""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tomli_w

from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside
from trainpilot.runs.job import Job
from trainpilot.runs.taskdir import TaskDir, claim
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from pydantic import BaseModel

    from trainpilot.jobs import Kind

FILE = "job.toml"
SCHEMA = 1
Resource = Literal["gpu", "cpu", "net"]


class JobDir(TaskDir):
    """One job. kind: its name; params: checked by the kind's model; resource: who may run it; created: unix seconds."""

    WORD: ClassVar[str] = "job"

    def __init__(
        self, path: Path, workspace: Workspace, kind: Kind, params: BaseModel, title: str, created: float
    ) -> None:
        super().__init__(path, workspace)
        self.kind, self.params, self.title, self.created = kind, params, title, created

    @classmethod
    def create(
        cls, workspace: Workspace, kind: str, params: Mapping[str, Any] | BaseModel, *, queue: bool = True
    ) -> JobDir:
        """Make the folder and its job.toml, and put it into the queue. PilotError names a wrong parameter."""
        from trainpilot.jobs import check, find

        check_writable(workspace)
        about = find(kind)
        given = params if isinstance(params, Mapping) else params.model_dump(exclude_unset=True)
        checked = check(about, given)
        workspace.jobs.mkdir(parents=True, exist_ok=True)
        created = round(time.time(), 3)
        path = claim(workspace.jobs, f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}")
        job = cls(path, workspace, about, checked, about.title(checked), created)
        job.requests_folder.mkdir()
        values = checked.model_dump(mode="json", exclude_none=True)
        document = {
            "schema": SCHEMA,
            "kind": kind,
            "resource": about.RESOURCE,
            "title": job.title,
            "created": created,
            "params": values,
            "sources": {name: "given" if name in given else "default" for name in values},
        }
        write_beside(path / FILE, tomli_w.dumps(document).encode())
        if queue:
            job.queue()
        return job

    @classmethod
    def open(cls, path: Path, workspace: Workspace | None = None) -> JobDir:
        """The job in a folder. PilotError where there is none, or one of a kind that is not installed."""
        from trainpilot.jobs import check, find

        path = path.expanduser().resolve()
        tables = read_job(path)
        if workspace is None:
            workspace = Workspace(path.parent.parent) if path.parent.name == "jobs" else Workspace.find()
        about = find(str(tables.get("kind", "")))
        params = check(about, tables.get("params", {}))
        job = cls(path, workspace, about, params, str(tables.get("title", path.name)), float(tables.get("created", 0)))
        before = Job.read(path)
        job._count(before.attempts if before else 0)
        return job

    @classmethod
    def find(cls, workspace: Workspace, name: str) -> JobDir:
        """A job by its id. PilotError where there is none; a name is never a path to elsewhere."""
        path = workspace.jobs / name
        if path not in jobdirs(workspace):
            raise PilotError("job", name, "the id of a job in jobs/", "Look at the list of jobs.")
        return cls.open(path, workspace)

    @property
    def resource(self) -> Resource:
        return self.kind.RESOURCE


def jobdirs(workspace: Workspace) -> list[Path]:
    """All job folders of a workspace, by name."""
    if not workspace.jobs.is_dir():
        return []
    with os.scandir(workspace.jobs) as found:
        names = sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    return [workspace.jobs / name for name in names if (workspace.jobs / name / FILE).is_file()]


def read_job(path: Path) -> dict[str, Any]:
    """The tables of a folder's job.toml. PilotError where there is none, or a newer one."""
    try:
        tables = tomllib.loads((path / FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise PilotError(path, f"no {FILE} that can be read", "a job folder", "Check the path.") from error
    except ValueError as error:
        raise PilotError(path / FILE, f"not TOML: {error}", "TOML", "Create the job again.") from error
    if tables.get("schema") != SCHEMA:
        given = f"schema {tables.get('schema')}"
        raise PilotError(path / FILE, given, f"schema {SCHEMA}", "Use the version of TrainPilot that wrote it.")
    return tables


def resource_of(path: Path) -> Resource | None:
    """What a job needs, by its kind: what the file says of that could be forged, and the courier knows the tokens.

    None for a job that is damaged, newer, or of a kind that is not installed: nobody runs it.
    """
    from trainpilot.jobs import kinds

    try:
        kind = kinds().get(str(read_job(path).get("kind")))
    except PilotError:
        return None
    return kind.RESOURCE if kind else None
