"""Datasets as pages and API show them: what there is, what is in one, and what is wrong with it.

Names and captions are read here; pictures are measured by `controlpilot.measuring`, in a process of its own. Used by
the Datasets pages, the wizard's second step and the API. Changes are in `dataset_changes.py`.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from controlpilot.measuring import measuring
from controlpilot.views.refusals import NotFound
from trainpilot.config.describe import did_you_mean
from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.images import Inspection
from trainpilot.datasets.layouts import Found, Layout, discover, listed_names
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

PAGE = 60  # pictures a page: what a large screen shows at once, and some
_KEPT = 64  # datasets whose listing stays in memory
_CAPTIONS_KEPT = 100_000


class Problem(BaseModel):
    """The contract's error shape."""

    where: str
    given: str
    allowed: str
    remedy: str
    message: str

    @classmethod
    def of(cls, error: PilotError) -> Problem:
        return cls(
            where=error.where, given=error.given, allowed=error.allowed, remedy=error.remedy, message=error.message
        )


class Finding(BaseModel):
    """Something about a dataset. level: "error", "warning" (worth a look) or "note"."""

    level: str
    text: str
    remedy: str = ""


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


class Check(BaseModel):
    """What can be said about a dataset without opinions. measured, of: pictures whose size is known."""

    findings: list[Finding]
    images: int
    captioned: int
    measured: int
    of: int
    sizes: list[tuple[str, int]] = []
    smallest: int | None = None


@dataclass
class _Listing:
    signature: tuple[tuple[str, int], ...]
    layout: Layout | None
    problem: PilotError | None


_listings: OrderedDict[Path, _Listing] = OrderedDict()
_captions: OrderedDict[Path, tuple[tuple[int, int], str]] = OrderedDict()
_guard = threading.Lock()


def places(workspace: Workspace) -> list[Path]:
    """The folders that hold datasets, first wins: as a configuration's `datasets[].path` is looked up."""
    return [workspace.datasets / "images", workspace.datasets, workspace.root / "lora_training" / "data"]


def folders(workspace: Workspace) -> dict[str, Path]:
    """Every dataset's folder by name."""
    found: dict[str, Path] = {}
    for place in places(workspace):
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if not path.name.startswith(".") and path not in places(workspace) and path.is_dir():
                    found.setdefault(path.name, path)
    return found


def folder(workspace: Workspace, name: str) -> Path:
    """The folder of a dataset. Raises NotFound with the nearest name."""
    known = folders(workspace)
    if name not in known:
        raise NotFound(
            "dataset", name[:100], ", ".join(list(known)[:20]) or "none yet",
            did_you_mean(name, known, "Choose one of these, or upload one."),
        )  # fmt: skip
    return known[name]


def _signature(root: Path) -> tuple[tuple[str, int], ...]:
    """Times of the folders a layout looks at: they change with every file that comes, goes or is renamed."""
    found: list[tuple[str, int]] = []
    waiting = [(root, 0)]
    while waiting and len(found) < 2000:
        place, depth = waiting.pop()
        try:
            found.append((str(place), place.stat().st_mtime_ns))
            if depth < 3:
                with os.scandir(place) as entries:
                    waiting += [(Path(e.path), depth + 1) for e in entries if not e.name.startswith(".") and e.is_dir()]
                metadata = place / "metadata.jsonl"
                if metadata.is_file():
                    found.append((str(metadata), metadata.stat().st_mtime_ns))
        except OSError:
            found.append((str(place), -1))
    return tuple(sorted(found))


def layout_of(root: Path) -> Layout:
    """The layout of a folder, remembered until one of its folders changes. Raises PilotError as `discover` does."""
    signature = _signature(root)
    with _guard:
        kept = _listings.get(root)
    if kept is None or kept.signature != signature:
        try:
            kept = _Listing(signature, discover(root), None)
        except PilotError as problem:
            kept = _Listing(signature, None, problem)
        with _guard:
            _listings[root] = kept
            while len(_listings) > _KEPT:
                _listings.popitem(last=False)
    if kept.layout is None:
        assert kept.problem is not None
        raise kept.problem
    return kept.layout


def caption_of(found: Found) -> str:
    """A picture's caption as written; an unreadable file is an empty one (the check names it)."""
    if found.caption_text is not None:
        return found.caption_text.strip()
    if found.caption_path is None:
        return ""
    try:
        status = found.caption_path.stat()
    except OSError:
        return ""
    stamp = (status.st_mtime_ns, status.st_size)
    with _guard:
        kept = _captions.get(found.caption_path)
    if kept and kept[0] == stamp:
        return kept[1]
    try:
        text, _ = read_caption(found.caption_path)
    except PilotError:
        text = ""
    with _guard:
        _captions[found.caption_path] = (stamp, text)
        while len(_captions) > _CAPTIONS_KEPT:
            _captions.popitem(last=False)
    return text


def file_of(found: Found, root: Path) -> str:
    return found.image.relative_to(root).as_posix()


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
    base.changed = max((when for _, when in _signature(root)), default=0) / 1e9
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


def found_picture(workspace: Workspace, name: str, file: str) -> tuple[Path, Layout, Found]:
    """(folder, layout, picture) of a file of a dataset. Only pictures that the layout lists can be named: NotFound."""
    root = folder(workspace, name)
    layout = layout_of(root)
    for one in layout.images:
        if file_of(one, layout.root) == file:
            return root, layout, one
    raise NotFound("picture", file[:200], f"a picture of {name}", "Reload the page: it may have been moved.")


def check(workspace: Workspace, name: str, recommended: tuple[int, int] | None = None, trigger: str = "") -> Check:
    """Validate a dataset by what is known without training: counts, captions, broken and double pictures, sizes.

    recommended: number of pictures, from and to, of the training type. Pictures not measured yet are being measured.
    """
    root = folder(workspace, name)
    layout = layout_of(root)
    work = measuring(workspace)
    paths = [one.image for one in layout.images]
    work.want(work.unknown(paths))
    facts = work.facts(paths)
    texts = [caption_of(one) for one in layout.images]
    whole = {path: fact for path, fact in facts.items() if fact.problem is None}
    findings = [Finding(level="note", text=note) for note in layout.notes]
    findings += _about_pictures(facts)
    findings += _about_counts(len(paths), recommended)
    findings += _about_captions(texts, trigger, layout)
    sides = Counter(f"{fact.size[0]}x{fact.size[1]}" for fact in whole.values())
    order = {"error": 0, "warning": 1, "note": 2}
    return Check(
        findings=sorted(findings, key=lambda one: order[one.level]),
        images=len(paths),
        captioned=sum(bool(text) for text in texts),
        measured=len(facts),
        of=len(paths),
        sizes=sides.most_common(6),
        smallest=min((min(fact.size) for fact in whole.values()), default=None),
    )


def _about_pictures(facts: dict[Path, Inspection]) -> list[Finding]:
    broken = {path.name: fact.problem for path, fact in facts.items() if fact.problem}
    found = [
        Finding(level="error", text=f"{name} {problem}", remedy="Replace it or move it to the trash; it is skipped.")
        for name, problem in list(broken.items())[:5]
    ]
    if len(broken) > 5:
        found.append(Finding(level="error", text=f"and {len(broken) - 5} more pictures that cannot be used"))
    contents: dict[str, list[str]] = {}
    for path, fact in facts.items():
        if fact.problem is None:
            contents.setdefault(fact.sha256, []).append(path.name)
    for names in [names for names in contents.values() if len(names) > 1][:5]:
        found.append(
            Finding(
                level="warning",
                text=f"the same picture {len(names)} times: {listed_names(names)}",
                remedy="Keep one: doubles are learnt by heart.",
            )
        )
    remarks: dict[str, list[str]] = {}
    for path, fact in facts.items():
        for remark in fact.remarks:
            remarks.setdefault(remark, []).append(path.name)
    found += [Finding(level="note", text=f"{listed_names(names)}: {remark}") for remark, names in remarks.items()]
    small = [path.name for path, fact in facts.items() if fact.problem is None and max(fact.size) < 512]
    if small and any(max(fact.size) >= 512 for fact in facts.values() if fact.problem is None):
        found.append(
            Finding(
                level="warning",
                text=f"{len(small)} pictures are smaller than 512 px: {listed_names(small)}",
                remedy="Use larger originals; enlarging adds no detail.",
            )
        )
    return found


def _about_counts(count: int, recommended: tuple[int, int] | None) -> list[Finding]:
    if recommended is None:
        return []
    low, high = recommended
    if count < low:
        text = f"{count} pictures; {low} to {high} are recommended for this type"
        return [Finding(level="warning", text=text, remedy="Add pictures that differ in pose, light and place.")]
    if count > high * 3:
        text = f"{count} pictures; {low} to {high} are recommended for this type"
        return [Finding(level="note", text=text, remedy="The best of them usually train better than all of them.")]
    return []


def _about_captions(texts: list[str], trigger: str, layout: Layout) -> list[Finding]:
    empty = sum(not text for text in texts)
    found = []
    if empty == len(texts):
        instead = layout.images[0].class_tokens or "the empty caption"
        text = f"no picture has a caption; every picture is trained with {instead!r}"
        found.append(Finding(level="warning", text=text, remedy="Captions keep what varies out of the trigger word."))
    elif empty:
        found.append(
            Finding(level="warning", text=f"{empty} of {len(texts)} pictures have no caption", remedy="Write them.")
        )
    same = Counter(text for text in texts if text).most_common(1)
    if same and same[0][1] > max(3, len(texts) // 2):
        text = f"{same[0][1]} captions are the same: {same[0][0][:80]!r}"
        found.append(Finding(level="warning", text=text, remedy="Varied captions generalise better."))
    if trigger:
        captioned = [text for text in texts if text]
        without = sum(trigger.casefold() not in text.casefold() for text in captioned)
        late = sum(not text.casefold().startswith(trigger.casefold()) for text in captioned) - without
        if without or late:
            text = f"the trigger {trigger!r} is missing in {without} captions and not first in {late}"
            found.append(
                Finding(level="note", text=text, remedy="It is put first while training; the files stay as they are.")
            )
    return found
