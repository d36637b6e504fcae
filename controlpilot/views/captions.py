"""The captions of a dataset as page and API show them: captioners, edits of all captions at once, tags, sets, undo.

Captioners are reached through the job kind `caption`, which declares them without torch; the captioning itself is a job
of the worker. Used by pages/captions.py and api/captions.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from controlpilot.views import jobs
from controlpilot.views.dataset_folders import folder
from controlpilot.views.jobs import JobRow
from controlpilot.views.refusals import Conflict
from trainpilot.config.describe import atoms
from trainpilot.datasets import caption_edits, caption_files, caption_sets, caption_tags, caption_tools
from trainpilot.datasets.caption_journal import Journal
from trainpilot.errors import PilotError
from trainpilot.jobs import find as find_kind
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

KIND = "caption"
OptionKind = Literal["switch", "choice", "number", "text"]
MOST_TAGS = 60
MOST_CHANGES = 200  # changes shown of a preview; all of them are made
MOST_EDITS = 20
LATEST = 8  # captions shown of a job that runs


class Option(BaseModel):
    """One field of a form, from a declaration. low, high: limits of a number; many: a list, written with commas."""

    name: str
    label: str
    help: str
    kind: OptionKind
    values: list[str] = []
    default: str = ""
    low: float | None = None
    high: float | None = None
    required: bool = False
    many: bool = False


class OperationForm(BaseModel):
    """An edit of all captions, and its fields."""

    name: str
    help: str
    options: list[Option]


class ModelOffer(BaseModel):
    """A model of a captioner; here: it is on disk."""

    name: str
    label: str
    size_bytes: int
    licence: str
    here: bool


class CaptionerForm(BaseModel):
    """A captioner, its models and options."""

    name: str
    label: str
    about: str
    models: list[ModelOffer]
    options: list[Option]


class Made(BaseModel):
    """A caption that a job has just made."""

    picture: str
    text: str


class Captioning(BaseModel):
    """The dataset's newest captioning job."""

    job: JobRow
    latest: list[Made]


class Tag(BaseModel):
    """captions: how many have it; share: of all; reason: why it should perhaps be pruned, "" where nothing says so."""

    tag: str
    captions: int
    share: float
    reason: str = ""


class SetRow(BaseModel):
    """A caption set; t: unix seconds."""

    name: str
    captions: int
    pictures: int
    t: float


class EditRow(BaseModel):
    """An edit that was made; t: unix seconds."""

    number: int
    about: str
    t: float
    files: int
    undone: bool


class CaptionsPage(BaseModel):
    """Everything about the captions of one dataset. edits: the newest first."""

    dataset: str
    pictures: int
    captions: int
    notes: list[str]
    operations: list[OperationForm]
    captioners: list[CaptionerForm]
    captioning: Captioning | None
    tags: list[Tag]
    sets: list[SetRow]
    edits: list[EditRow]
    can_undo: bool
    can_redo: bool


class Changed(BaseModel):
    """One caption before and after; null: there is none."""

    picture: str
    before: str | None
    after: str | None


class Shown(BaseModel):
    """What an edit would do. total: captions that change, of which the first are in `changes`; seen: to send back."""

    about: str
    changes: list[Changed]
    total: int
    seen: str
    notes: list[str]


class Done(BaseModel):
    """What was done. files: how many were written; left: those that were changed since and stay."""

    about: str
    files: int
    left: list[str] = []


def page(workspace: Workspace, name: str, trigger: str = "") -> CaptionsPage:
    """The page of a dataset. NotFound for a wrong name, PilotError for a folder that is no dataset."""
    files = caption_files.read(folder(workspace, name))
    edits = Journal(files.root).edits()
    texts = files.texts
    reasons = {one.tag.casefold(): one.reason for one in caption_tags.suggest(texts, trigger)}
    tags = caption_tags.count(texts.values())
    tags.sort(key=lambda one: (one.tag.casefold() not in reasons, -one.captions))
    done = [one.number for one in edits if not one.undone]
    return CaptionsPage(
        dataset=name,
        pictures=len(files.places),
        captions=sum(bool(text) for text in texts.values()),
        notes=files.notes,
        operations=operations(),
        captioners=captioners(workspace),
        captioning=captioning(workspace, name),
        tags=[
            Tag(tag=one.tag, captions=one.captions, share=one.share, reason=reasons.get(one.tag.casefold(), ""))
            for one in tags[:MOST_TAGS]
        ],
        sets=[SetRow(**asdict(one)) for one in caption_sets.sets(files.root)],
        edits=[EditRow(**asdict(one)) for one in reversed(edits[-MOST_EDITS:])],
        can_undo=bool(done),
        can_redo=any(one.undone and one.number > max(done, default=0) for one in edits),
    )


def operations() -> list[OperationForm]:
    """What can be done to all captions, as forms."""
    return [
        OperationForm(name=name, help=found.HELP, options=options_of(found.Params))
        for name, found in caption_edits.operations().items()
    ]


def captioners(workspace: Workspace) -> list[CaptionerForm]:
    """All captioners, as forms."""
    kind: Any = find_kind(KIND)
    return [
        CaptionerForm(
            name=name,
            label=found.LABEL,
            about=found.ABOUT,
            models=[ModelOffer(**one.model_dump(exclude={"download"})) for one in kind.offers(workspace, name)],
            options=options_of(found.Options),
        )
        for name, found in kind.known().items()
    ]


def options_of(model: type[BaseModel]) -> list[Option]:
    """A declaration's fields as a form shows them."""
    found = []
    for name, info in model.model_fields.items():
        kinds, values = atoms(info.annotation)
        number = bool(kinds) and kinds <= {int, float}
        kind: OptionKind = "choice" if values else "switch" if bool in kinds else "number" if number else "text"
        limits = {key: getattr(item, key) for item in info.metadata for key in ("ge", "le") if hasattr(item, key)}
        default = "" if info.is_required() else info.get_default(call_default_factory=True)
        found.append(
            Option(
                name=info.alias or name,
                label=(info.alias or name).replace("_", " ").capitalize(),
                help=info.description or "",
                kind=kind,
                values=[str(value) for value in values],
                default=", ".join(default) if isinstance(default, list) else str(default),
                low=limits.get("ge"),
                high=limits.get("le"),
                required=info.is_required(),
                many=list in kinds,
            )
        )
    return found


def captioning(workspace: Workspace, name: str) -> Captioning | None:
    """The newest captioning of a dataset, with the captions that came last."""
    kind: Any = find_kind(KIND)
    for row in jobs.listing(workspace, KIND).jobs:
        path = workspace.jobs / row.id
        if read_job(path).get("params", {}).get("dataset") == name:
            latest = [Made(picture=picture, text=text) for picture, text in kind.latest(path, LATEST)]
            return Captioning(job=row, latest=latest)
    return None


def write(workspace: Workspace, name: str, params: Mapping[str, Any]) -> JobRow:
    """Put a captioning into the queue. Conflict where one of this dataset waits or runs, or its model is missing."""
    folder(workspace, name)
    present = captioning(workspace, name)
    if present and present.job.status in ("queued", "running"):
        raise Conflict("captions", "a captioner is at work", "one at a time", "Wait for it, or stop it.")
    kind: Any = find_kind(KIND)
    model = str(params.get("model", ""))
    offers = kind.offers(workspace, str(params.get("captioner", "blip")))
    wanted = next((one for one in offers if one.name == model), offers[0] if not model else None)
    if wanted is not None and not wanted.here:
        raise Conflict(
            "model", f"{wanted.label} is not on disk ({wanted.size_bytes / 1e9:.1f} GB)", "a model that is here",
            "Fetch it first, with the button beside it.",
        )  # fmt: skip
    return jobs.one(workspace, JobDir.create(workspace, KIND, {**params, "dataset": name}).name)


def fetch(workspace: Workspace, captioner: str, model: str) -> JobRow:
    """Put the download of a captioner's model into the courier's queue. Conflict where it is on its way."""
    kind: Any = find_kind(KIND)
    offers = {one.name: one for one in kind.offers(workspace, captioner)}
    if model not in offers:
        raise PilotError("model", model[:80], ", ".join(offers), "Choose one of these.")
    given = offers[model].download
    for row in jobs.listing(workspace, "download", live=True).jobs:
        if read_job(workspace.jobs / row.id).get("params", {}).get("to") == given["to"]:
            raise Conflict("model", f"{row.title} is on its way", "one download of a thing", "Wait for it.")
    return jobs.one(workspace, JobDir.create(workspace, "download", given).name)


def preview(workspace: Workspace, name: str, do: str, params: Mapping[str, Any]) -> Shown:
    """What an operation would change; `use` takes the captions of the sets in params["sets"]. Nothing is written."""
    _, wanted = _wanted(workspace, name, do, params)
    changes = [Changed(**asdict(change)) for change in wanted.changes[:MOST_CHANGES]]
    return Shown(
        about=wanted.about, changes=changes, total=len(wanted.changes), seen=wanted.seen, notes=wanted.notes
    )  # fmt: skip


def edit(workspace: Workspace, name: str, do: str, params: Mapping[str, Any], seen: str = "") -> Done:
    """Make the changes of a preview, for good but for the undo. Conflict where they are not those that were seen."""
    check_writable(workspace)
    files, wanted = _wanted(workspace, name, do, params)
    if seen and seen != wanted.seen:
        raise Conflict("captions", "changed since the preview", "the captions that were seen", "Look at it again.")
    made = caption_tools.apply(files, wanted)
    return Done(about=wanted.about, files=made.files if made else 0)


def turn(workspace: Workspace, name: str, *, back: bool, leave_changed: bool = False) -> Done:
    """Undo the newest edit, or make the last undone one again. PilotError where files have changed since."""
    check_writable(workspace)
    journal = Journal(_root(workspace, name))
    turned = (journal.undo if back else journal.redo)(leave_changed=leave_changed)
    return Done(about=turned.edit.about, files=turned.files, left=list(turned.left))


def keep(workspace: Workspace, name: str, as_name: str) -> SetRow:
    """Keep the captions as a set. PilotError where a set has that name."""
    check_writable(workspace)
    files = caption_files.read(folder(workspace, name))
    caption_sets.save(files.root, as_name, caption_sets.present(files))
    return next(SetRow(**asdict(one)) for one in caption_sets.sets(files.root) if one.name == as_name)


def _root(workspace: Workspace, name: str) -> Path:
    return caption_files.read(folder(workspace, name)).root


def _wanted(
    workspace: Workspace, name: str, do: str, params: Mapping[str, Any]
) -> tuple[caption_files.CaptionFiles, caption_tools.Preview]:
    files = caption_files.read(folder(workspace, name))
    if do == "use":
        names = [str(one) for one in params.get("sets", [])]
        if not names:
            raise PilotError("sets", "none", "the names of sets", "Choose at least one.")
        chosen = [caption_sets.read(files.root, one) for one in names]
        texts, notes = caption_sets.changes(files, chosen[0] if len(chosen) == 1 else caption_sets.as_lines(chosen))
        wanted = caption_tools.of_texts(files, f"captions of {' and '.join(names)}", texts)
        return files, caption_tools.Preview(wanted.about, wanted.changes, wanted.replacements, notes + wanted.notes)
    operation = caption_edits.find(do)
    return files, caption_tools.preview(files, operation, caption_edits.check(operation, params))
