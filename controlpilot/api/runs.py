"""Runs: the list, one run, its lines, samples, log and configuration, and what can be done to it."""

from __future__ import annotations

from typing import Annotated

from flask import send_file
from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Raw, Resource
from controlpilot.desk import desk
from controlpilot.views import logreader, run_actions, run_configuration, samples
from controlpilot.views import run as run_view
from controlpilot.views import runs as run_list
from controlpilot.views.course import COURSES
from controlpilot.views.logreader import LogPart, LogSearch
from controlpilot.views.run import Checkpoint, RunDetail
from controlpilot.views.run_actions import About, Undo
from controlpilot.views.run_configuration import Configuration, Difference
from controlpilot.views.runs import RunList, Show, Sort, folder_of
from controlpilot.views.samples import Matrix
from controlpilot.views.series import BUCKETS, Series
from controlpilot.views.series import series as lines_of
from trainpilot.errors import PilotError

resource = Resource("runs", "Training runs")
blueprint = resource.blueprint

Step = Annotated[int, Field(ge=0, le=10**9)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ListQuery(_Given):
    """What of the list is wanted."""

    show: Show = "all"
    text: str = Field("", max_length=100, description="Words that all occur in name, title, tags, base or dataset")
    tag: str = Field("", max_length=40)
    sort: Sort = "newest"
    page: int = Field(1, ge=1, le=10**6)
    size: int = Field(run_list.PAGE, ge=1, le=run_list.LARGEST_PAGE)


class SeriesQuery(_Given):
    """Which part of the lines is wanted."""

    after: str | None = Field(None, max_length=40, description="`after` of the last answer: only news come")
    from_step: Step | None = None
    to_step: Step | None = None
    buckets: int = Field(BUCKETS, ge=10, le=2000, description="Most points wanted")


class SamplesQuery(_Given):
    """Which steps are wanted."""

    before: Step | None = Field(None, description="Only steps below this one")
    rows: int = Field(samples.ROWS, ge=1, le=200)


class LogQuery(_Given):
    """Which part of the log is wanted; without `after` and `before`, its end."""

    after: str | None = Field(None, max_length=40, description="`end` of an earlier answer")
    before: str | None = Field(None, max_length=40, description="`start` of an earlier answer")
    limit: int = Field(logreader.WINDOW, ge=256, le=logreader.LARGEST, description="About so many bytes")


class SearchQuery(_Given):
    """What is looked for."""

    text: str = Field(min_length=1, max_length=200)
    before: str | None = Field(None, max_length=40, description="`next` of the last answer")
    limit: int = Field(200, ge=1, le=1000)


class OtherQuery(_Given):
    """The run to compare with."""

    other: str = Field(min_length=1, max_length=100)


class Changes(_Given):
    """Settings that change with a resume, as on the command line: `training.steps=3000`."""

    changes: list[Annotated[str, Field(max_length=2000)]] = Field(default_factory=list, max_length=100)


class Said(BaseModel):
    """What happens now, in a sentence."""

    message: str


class Described(BaseModel):
    """What people say about a run."""

    title: str
    star: bool
    notes: str
    tags: list[str]


class Restored(BaseModel):
    """The run that is back."""

    name: str


@resource.get("/runs")
def runs(query: ListQuery) -> RunList:
    """A page of the runs that match."""
    return run_list.runs(desk().workspace, **query.model_dump())


@resource.get("/runs/<name>")
def run(name: str) -> RunDetail:
    """One run: progress, signs, checkpoints, what can be done."""
    return run_view.detail(desk().workspace, name)


@resource.patch("/runs/<name>")
def describe(name: str, body: About) -> Described:
    """Change title, star, notes or tags; the folder keeps its name."""
    meta = run_actions.describe(desk().workspace, name, body)
    return Described(
        title=str(meta.get("title") or ""),
        star=meta.get("star") is True,
        notes=str(meta.get("notes") or ""),
        tags=[str(tag) for tag in meta.get("tags") or []],
    )


@resource.delete("/runs/<name>", refuses=(409,))
def trash(name: str) -> Undo:
    """Move a run to the trash; a live or waiting one is refused."""
    return run_actions.trash(desk().workspace, name)


@resource.post("/runs/trash/<ident>/restore", refuses=(409,))
def restore(ident: str) -> Restored:
    """Put a run back from the trash."""
    return Restored(name=run_actions.restore(desk().workspace, ident))


@resource.get("/runs/<name>/series")
def series(name: str, query: SeriesQuery) -> Series:
    """The run's lines in at most `buckets` points; later only what is new."""
    path = folder_of(desk().workspace, name)
    return lines_of(name, COURSES.read(path), query.after, query.from_step, query.to_step, query.buckets)


@resource.get("/runs/<name>/samples")
def sample_matrix(name: str, query: SamplesQuery) -> Matrix:
    """Samples by steps and prompts, each with what its PNG says."""
    return samples.matrix(folder_of(desk().workspace, name), query.before, query.rows)


@resource.get("/runs/<name>/samples/<file>", content="image/png")
def sample(name: str, file: str) -> Raw:
    """One sample's picture."""
    return send_file(samples.file_of(folder_of(desk().workspace, name), file), mimetype="image/png", conditional=False)


@resource.get("/runs/<name>/checkpoints")
def checkpoints(name: str) -> list[Checkpoint]:
    """The run's checkpoints, the newest first."""
    return run_view.checkpoints(folder_of(desk().workspace, name))


@resource.get("/runs/<name>/log")
def log(name: str, query: LogQuery) -> LogPart:
    """The end of the log, or what follows or comes before a place of it."""
    path = folder_of(desk().workspace, name) / "log.txt"
    if query.after is not None and query.before is not None:
        raise PilotError("query", "after and before", "one of them", "Send one, or none for the end of the log.")
    if query.after is not None:
        return logreader.after(path, query.after, query.limit)
    if query.before is not None:
        return logreader.before(path, query.before, query.limit)
    return logreader.tail(path, query.limit)


@resource.get("/runs/<name>/log/search")
def log_search(name: str, query: SearchQuery) -> LogSearch:
    """Lines of the log with a text, the newest first."""
    path = folder_of(desk().workspace, name) / "log.txt"
    return logreader.search(path, query.text, query.before, query.limit)


@resource.get("/runs/<name>/configuration")
def configuration(name: str) -> Configuration:
    """All settings with their sources."""
    return run_configuration.configuration(desk().workspace, name)


@resource.get("/runs/<name>/difference")
def difference(name: str, query: OtherQuery) -> list[Difference]:
    """The settings in which it differs from another run."""
    return run_configuration.difference(desk().workspace, name, query.other)


@resource.post("/runs/<name>/resume", status=202, refuses=(409,))
def resume(name: str, body: Changes) -> Said:
    """Into the queue, from the last checkpoint, with changed settings where given."""
    return Said(message=run_actions.resume(desk().workspace, name, body.changes))


@resource.post("/runs/<name>/requests/<kind>", status=202, refuses=(409,))
def ask(name: str, kind: str) -> Said:
    """Ask a live run to stop, save or sample."""
    run_actions.request(desk().workspace, name, run_actions.request_kind(kind))
    return Said(message=f"Asked to {kind}.")
