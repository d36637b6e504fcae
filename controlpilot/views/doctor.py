"""The doctor's report on a dataset, as its page shows it: the newest check, what it found, and what mends it.

The check and every fix are jobs of the worker (`trainpilot.jobs.dataset_check`, `dataset_fix`); here they are started
and their files read. Used by pages/doctor.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from controlpilot.views import jobs
from controlpilot.views.dataset_folders import file_of, folder, layout_of, signature_of
from controlpilot.views.datasets import Picture, pictures
from controlpilot.views.jobs import JobRow
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Trash
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

CHECK, FIX = "dataset-check", "dataset-fix"
SHOWN = 12  # pictures of a finding that are shown; the others are counted
Purpose = Literal["", "face", "style", "object", "concept"]


class Place(BaseModel):
    """One file of a finding, and what is the matter with it."""

    file: str
    detail: str
    picture: Picture | None = None


class Mend(BaseModel):
    """What helps. kind: "" where a person must act; command: the same in a shell."""

    text: str
    kind: str
    options: dict[str, Any]
    command: str


class FindingView(BaseModel):
    """One finding. number: its place in the report, by which its fix is asked for; points: what it costs."""

    number: int
    check: str
    level: Literal["error", "warning", "note"]
    title: str
    why: str
    places: list[Place]
    more: int = Field(description="Files that are not among `places`")
    points: float
    fix: Mend | None


class ReportView(BaseModel):
    """A report. stale: the dataset has changed since."""

    score: int
    arithmetic: list[str]
    findings: list[FindingView]
    passed: list[str]
    buckets: list[dict[str, Any]]
    guide: str
    resolution: list[int]
    triggers: list[str]
    made: float
    stale: bool


class Mended(BaseModel):
    """The newest fix. trash: entries that take it back, while they are there."""

    job: JobRow
    trash: list[str] = []


class Consultation(BaseModel):
    """Everything the page shows: the newest check of this dataset, its report, the newest fix."""

    check: JobRow | None = None
    report: ReportView | None = None
    fix: Mended | None = None

    @property
    def live(self) -> bool:
        """Whether something is under way."""
        jobs_here = [self.check, self.fix.job if self.fix else None]
        return any(job is not None and job.status in jobs.LIVE for job in jobs_here)


def consultation(workspace: Workspace, name: str) -> Consultation:
    """What the doctor last said of a dataset, and what was mended since. NotFound where there is no such dataset."""
    root = folder(workspace, name)
    found = Consultation()
    for place in _of_dataset(workspace, CHECK, root):
        row = jobs.one(workspace, place.name)
        found.check = found.check or row
        told = read_json(place / "report.json")
        if told is not None:  # of an earlier check, where the newest has none yet
            found.report = _report(workspace, root, told)
            break
    newest = next(_of_dataset(workspace, FIX, root), None)
    if newest is not None:
        ids = (read_json(newest / "fixed.json") or {}).get("trash") or []
        there = {entry.id for entry in Trash(workspace).entries()} if ids else set()
        found.fix = Mended(job=jobs.one(workspace, newest.name), trash=[one for one in ids if one in there])
    return found


def ask(workspace: Workspace, name: str, purpose: str = "", trigger: str = "") -> JobRow:
    """Start a check. Conflict while one is under way; PilotError for what the check cannot be asked."""
    root = folder(workspace, name)
    check_writable(workspace)
    running = consultation(workspace, name).check
    if running is not None and running.status in jobs.LIVE:
        raise Conflict(f"dataset {name}", "it is being checked", "one check at a time", "Wait, or cancel it.")
    triggers = [word.strip() for word in trigger.split(",") if word.strip()]
    made = JobDir.create(workspace, CHECK, {"path": str(root), "type": purpose, "triggers": triggers})
    return jobs.one(workspace, made.path.name)


def mend(workspace: Workspace, name: str, number: int) -> JobRow:
    """Start the fix of a finding of the newest report. NotFound where it has none, Conflict while one works."""
    check_writable(workspace)
    found = consultation(workspace, name)
    listed = found.report.findings if found.report else []
    fix = next((one.fix for one in listed if one.number == number and one.fix and one.fix.kind), None)
    if fix is None:
        raise NotFound("finding", number, "a finding of the newest report that has a fix", "Reload the page.")
    if found.live:
        raise Conflict(f"dataset {name}", "it is being worked on", "one job at a time", "Wait, or cancel it.")
    root = folder(workspace, name)
    made = JobDir.create(workspace, FIX, {"path": str(root), "kind": fix.kind, "options": fix.options})
    return jobs.one(workspace, made.path.name)


def take_back(workspace: Workspace, name: str) -> None:
    """Undo the newest fix. NotFound where there is nothing to take back, Conflict where a file has its place."""
    fix = consultation(workspace, name).fix
    if fix is None or not fix.trash:
        raise NotFound("fix", name, "one whose originals are in the trash", "Nothing is left to take back.")
    trash = Trash(workspace)
    for ident in fix.trash:  # the last change first
        trash.restore(ident)


def _of_dataset(workspace: Workspace, kind: str, root: Path) -> Iterator[Path]:
    """Folders of the jobs of one kind about this dataset, the newest first."""
    for row in jobs.listing(workspace, kind).jobs:
        place = workspace.jobs / row.id
        try:
            params = read_job(place).get("params", {})
        except PilotError:
            continue  # the list of jobs says what is wrong with it
        if params.get("path") in (str(root), root.name):
            yield place


def _report(workspace: Workspace, root: Path, told: dict[str, Any]) -> ReportView:
    by_file: dict[str, Picture] = {}
    wanted = {place["file"] for one in told["findings"] for place in one["files"][:SHOWN]}
    try:
        layout = layout_of(root)
        chosen = [found for found in layout.images if file_of(found, layout.root) in wanted]
        by_file = {one.file: one for one in pictures(workspace, root, layout, chosen)}
    except PilotError:
        by_file = {}  # no dataset any more: the report is shown without its pictures
    changed = max((when for _, when in signature_of(root)), default=0) / 1e9
    question = told["question"]
    return ReportView(
        score=told["score"]["value"],
        arithmetic=told["score"]["sum"],
        findings=[_finding(number, one, by_file) for number, one in enumerate(told["findings"])],
        passed=[one["title"] for one in told["passed"]],
        buckets=told["buckets"],
        guide=question["guide"],
        resolution=question["resolution"],
        triggers=question["triggers"],
        made=told["made"],
        stale=changed > told["made"],
    )


def _finding(number: int, one: dict[str, Any], by_file: dict[str, Picture]) -> FindingView:
    places = [Place(**place, picture=by_file.get(place["file"])) for place in one["files"][:SHOWN]]
    return FindingView(
        number=number,
        places=places,
        more=len(one["files"]) - len(places),
        **{key: one[key] for key in ("check", "level", "title", "why", "points", "fix")},
    )
