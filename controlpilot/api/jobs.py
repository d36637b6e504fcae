"""Jobs: every long task that is no training run, such as downloads, tests of LoRAs and service installs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import jobs as view
from controlpilot.views import logreader
from controlpilot.views.jobs import JobList, JobRow
from trainpilot.runs.jobdir import JobDir

resource = Resource("jobs", "Long tasks other than training")
blueprint = resource.blueprint


class JobQuery(BaseModel):
    kind: str = Field(default="", max_length=50, description="Only jobs of this kind")
    live: bool = Field(default=False, description="Only jobs that wait or run")


class NewJob(BaseModel):
    model_config = {"extra": "forbid"}

    kind: str = Field(max_length=50)
    params: dict[str, Any] = Field(default={}, description="As the kind asks for")


class LogQuery(BaseModel):
    after: str = Field(default="", max_length=60, description="Place of an earlier answer; none: the end of the log")


class Trashed(BaseModel):
    undo: str = Field(description="Entry of the trash that puts it back")


@resource.get("/jobs")
def listing(query: JobQuery) -> JobList:
    """The newest jobs"""
    return view.listing(desk().workspace, query.kind, live=query.live)


@resource.post("/jobs", status=202)
def create(body: NewJob) -> JobRow:
    """Put a job into the queue"""
    place = desk().workspace
    return view.one(place, JobDir.create(place, body.kind, body.params).name)


@resource.get("/jobs/<ident>")
def one(ident: str) -> JobRow:
    """One job"""
    return view.one(desk().workspace, ident)


@resource.post("/jobs/<ident>/cancel", refuses=(409,), status=202)
def cancel(ident: str) -> JobRow:
    """Cancel a job that waits or runs"""
    return view.act(desk().workspace, ident, "cancel")


@resource.post("/jobs/<ident>/resume", refuses=(409,), status=202)
def resume(ident: str) -> JobRow:
    """Put a job that was stopped or failed back into the queue"""
    return view.act(desk().workspace, ident, "resume")


@resource.delete("/jobs/<ident>", refuses=(409,))
def trash(ident: str) -> Trashed:
    """Move a job that has ended into the trash"""
    return Trashed(undo=view.trash(desk().workspace, ident).id)


@resource.get("/jobs/<ident>/log")
def log(ident: str, query: LogQuery) -> logreader.LogPart:
    """A part of a job's log"""
    path = view.folder_of(desk().workspace, ident) / "log.txt"
    return logreader.after(path, query.after) if query.after else logreader.tail(path)
