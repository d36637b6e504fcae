"""The list of runs: found by name, filtered, sorted, a page at a time. Used by the Runs pages and the API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from controlpilot.views.refusals import NotFound
from controlpilot.views.run_index import Row, index
from trainpilot.runs.rundir import RunDir, configurations
from trainpilot.runs.taskdir import LONGEST_NAME
from trainpilot.workspace import Workspace

PAGE = 40
LARGEST_PAGE = 200
STATUSES = ("running", "queued", "done", "stopped", "failed", "interrupted", "new")
_NAME = re.compile(rf"(?!\.)[^/\\\x00-\x1f]{{1,{LONGEST_NAME}}}")

Show = Literal["all", "active", "done", "stopped", "failed", "starred"]
Sort = Literal["newest", "oldest", "name", "loss", "steps"]


class RunRow(BaseModel):
    """One run of the list. Times are unix seconds."""

    name: str
    title: str = Field(description="What a person calls it; empty: the name")
    status: str = Field(description=f"One of {', '.join(STATUSES)}")
    reason: str
    live: bool
    star: bool
    tags: list[str]
    profile: str
    family: str
    base: str
    datasets: list[str]
    rank: int | None
    step: int | None
    steps: int | None = Field(description="Steps of the whole run, where known")
    phase: str
    eta: float | None = Field(description="Seconds left, while training")
    loss: float | None
    device: str | None
    result: bool
    when: float
    started: float | None
    ended: float | None
    attempts: int


class RunList(BaseModel):
    """One page of runs."""

    runs: list[RunRow]
    total: int = Field(description="Runs that match")
    all: int = Field(description="Runs there are")
    counts: dict[str, int] = Field(description="Runs by what can be shown: all, active, done, stopped, failed, starred")
    tags: list[str] = Field(description="All tags in use")
    unread: int = Field(description="Run folders not read yet; ask again to see them")
    page: int
    pages: int


def folder_of(workspace: Workspace, name: str) -> Path:
    """The folder of a run by its name. NotFound where there is none, or the name could not be one.

    Only folders directly in outputs/ are runs; a link that leads elsewhere is none.
    """
    path = workspace.outputs / name
    if not _NAME.fullmatch(name) or path.is_symlink() or not configurations(path):
        remedy = "It may be in the trash. See the list of runs."
        raise NotFound("run", repr(name[:LONGEST_NAME]), "the name of a run in outputs/", remedy)
    return path


def open_run(workspace: Workspace, name: str) -> RunDir:
    """The run itself. NotFound as above; PilotError where its configuration cannot be read."""
    return RunDir.open(folder_of(workspace, name), workspace)


def runs(
    workspace: Workspace,
    *,
    show: Show = "all",
    text: str = "",
    tag: str = "",
    sort: Sort = "newest",
    page: int = 1,
    size: int = PAGE,
) -> RunList:
    """A page of the runs that match. text: words that all occur in name, title, tags, base, profile or dataset."""
    found, unread = index(workspace).rows()
    shown = [(row, row.view) for row in found]
    counts: dict[str, int] = {kind: sum(_shows(row, view, kind) for row, view in shown) for kind in _SHOWN}
    words = text.lower().split()
    chosen = [
        row
        for row, view in shown
        if _shows(row, view, show) and (not tag or tag in row.tags) and all(word in _text(row) for word in words)
    ]
    chosen.sort(key=_ORDER[sort][0], reverse=_ORDER[sort][1])
    size = max(1, min(size, LARGEST_PAGE))
    pages = max(1, -(-len(chosen) // size))
    page = max(1, min(page, pages))
    return RunList(
        runs=[row_of(row) for row in chosen[(page - 1) * size : page * size]],
        total=len(chosen),
        all=len(found),
        counts=counts,
        tags=sorted({tag for row, _ in shown for tag in row.tags}),
        unread=unread,
        page=page,
        pages=pages,
    )


def row_of(row: Row) -> RunRow:
    """The row as it is shown."""
    return RunRow(
        name=row.name,
        title=row.title,
        status=row.view,
        reason=row.reason,
        live=row.live,
        star=row.star,
        tags=row.tags,
        profile=row.profile,
        family=row.family,
        base=row.base,
        datasets=row.datasets,
        rank=row.rank,
        step=row.step,
        steps=row.steps,
        phase=row.phase if row.live else "",
        eta=max(0.0, row.eta) if row.live and row.eta is not None else None,
        loss=row.loss,
        device=row.device,
        result=row.result,
        when=row.when,
        started=row.times.get("started"),
        ended=row.times.get("ended") if row.view in ("done", "failed", "stopped") else None,
        attempts=row.attempts,
    )


def names(workspace: Workspace, but: str = "", limit: int = 500) -> list[str]:
    """Names of runs, the newest first, for choosing one to compare with."""
    found, _ = index(workspace).rows()
    ordered = sorted(found, key=lambda row: row.when, reverse=True)
    return [row.name for row in ordered if row.name != but][:limit]


_SHOWN: tuple[Show, ...] = ("all", "active", "done", "stopped", "failed", "starred")
_FAILED = ("failed", "interrupted")
_ORDER = {
    "newest": (lambda row: row.when, True),
    "oldest": (lambda row: row.when, False),
    "name": (lambda row: (row.title or row.name).lower(), False),
    "loss": (lambda row: (row.loss is None, row.loss or 0.0), False),
    "steps": (lambda row: row.step or 0, True),
}


def _shows(row: Row, view: str, show: Show) -> bool:
    if show == "starred":
        return row.star
    if show == "active":
        return view in ("running", "queued")
    if show == "failed":
        return view in _FAILED
    return show == "all" or view == show


def _text(row: Row) -> str:
    words = [row.name, row.title, row.profile, row.family, row.base, *row.datasets, *row.tags]
    return " ".join(words).lower()
