"""Datasets as pages and API show them: what there is, and what is in one.

Pictures are measured by `controlpilot.measuring`, in a process of its own. Used by the Datasets pages, the wizard's
second step and the API. Folders are read in `dataset_folders.py`, the check is `dataset_check.py`, changes are in
`dataset_changes.py`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from controlpilot.measuring import measuring
from controlpilot.views.dataset_folders import caption_of, file_of, folder, folders, layout_of, signature_of
from controlpilot.views.refusals import Problem
from trainpilot.config.describe import did_you_mean
from trainpilot.datasets.layouts import Found, Layout
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

PAGE = 60  # pictures a page: what a large screen shows at once, and some


class DatasetCard(BaseModel):
    """One dataset in the list. place: the folder that holds it, relative to the workspace; changed: unix seconds."""

    name: str
    path: str
    place: str
    kind: str = ""
    images: int = 0
    captions: int = 0
    repeats: int = 1
    class_tokens: str = ""
    changed: float = 0.0
    notes: list[str] = []
    problem: Problem | None = None
    preview: list[str] = []


class Picture(BaseModel):
    """One picture. file: relative to the dataset; thumb: whether its thumbnail is made; size: px, upright."""

    file: str
    name: str
    caption: str
    captioned: bool
    repeats: int
    size: tuple[int, int] | None = None
    problem: str | None = None
    remarks: list[str] = []
    thumb: str | None = None
    pending: bool = False


class PicturePage(BaseModel):
    """Some pictures of a dataset. total: those that the filter lets through; page counts from 1."""

    pictures: list[Picture]
    total: int
    page: int
    pages: int
    pending: bool


def card(workspace: Workspace, name: str, root: Path, previews: int = 4) -> DatasetCard:
    """One dataset for the list; a folder that cannot be used has a problem instead of counts."""
    place = root.parent.relative_to(workspace.root).as_posix() if root.is_relative_to(workspace.root) else ""
    base = DatasetCard(name=name, path=str(root), place=place)
    try:
        layout = layout_of(root)
    except PilotError as problem:
        base.problem = Problem.of(problem)
        return base
    images = layout.images
    base.kind, base.images, base.notes = layout.kind, len(images), layout.notes
    base.captions = sum(one.caption_path is not None or bool(one.caption_text) for one in images)
    base.repeats, base.class_tokens = images[0].repeats, images[0].class_tokens
    base.changed = max((when for _, when in signature_of(root)), default=0) / 1e9
    chosen = _spread(images, previews)
    base.preview = [picture.thumb or "" for picture in pictures(workspace, root, layout, chosen)]
    return base


def _spread(images: list[Found], count: int) -> list[Found]:
    """A few pictures from all over the dataset."""
    if len(images) <= count:
        return images
    return [images[number * len(images) // count] for number in range(count)]


def listing(workspace: Workspace) -> list[DatasetCard]:
    """Every dataset, by name; folders without pictures come last, with what is missing."""
    found = [card(workspace, name, root) for name, root in folders(workspace).items()]
    return sorted(found, key=lambda one: (one.problem is not None, one.name.lower()))


def pictures(workspace: Workspace, root: Path, layout: Layout, chosen: list[Found]) -> list[Picture]:
    """Chosen pictures with what is known of them; thumbnails that are missing are asked for."""
    work = measuring(workspace)
    facts = work.facts(one.image for one in chosen)
    found, missing = [], []
    for one in chosen:
        fact = facts.get(one.image)
        made = fact is not None and work.thumbnail(fact.sha256) is not None
        pending = not made and (fact is None or fact.problem is None)
        if pending:
            missing.append(one.image)
        found.append(
            Picture(
                file=file_of(one, layout.root),
                name=one.image.name,
                caption=caption_of(one),
                captioned=one.caption_path is not None or one.caption_text is not None,
                repeats=one.repeats,
                size=fact.size if fact and fact.problem is None else None,
                problem=fact.problem if fact else None,
                remarks=fact.remarks if fact else [],
                thumb=fact.sha256 if made and fact else None,
                pending=pending,
            )
        )
    work.want(missing, urgent=True)
    return found


FILTERS = ("all", "uncaptioned", "broken", "captioned")


def page(workspace: Workspace, name: str, number: int = 1, query: str = "", only: str = "all") -> PicturePage:
    """One page of a dataset's pictures. query: text in the name or the caption. Raises NotFound and PilotError."""
    if only not in FILTERS:
        raise PilotError("only", only, ", ".join(FILTERS), did_you_mean(only, FILTERS, "Choose one of these."))
    root = folder(workspace, name)
    layout = layout_of(root)
    chosen = layout.images
    if query:
        low = query.casefold()
        chosen = [one for one in chosen if low in one.image.name.casefold() or low in caption_of(one).casefold()]
    if only in ("uncaptioned", "captioned"):
        chosen = [one for one in chosen if bool(caption_of(one)) == (only == "captioned")]
    elif only == "broken":
        facts = measuring(workspace).facts(one.image for one in chosen)
        chosen = [one for one in chosen if one.image in facts and facts[one.image].problem]
    pages = max(1, -(-len(chosen) // PAGE))
    number = min(max(1, number), pages)
    shown = pictures(workspace, root, layout, chosen[(number - 1) * PAGE : number * PAGE])
    return PicturePage(
        pictures=shown, total=len(chosen), page=number, pages=pages, pending=any(one.pending for one in shown)
    )
