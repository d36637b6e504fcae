"""Where datasets lie and what is in their folders: names, pictures and captions as they are on disk.

Nothing is decoded here. A folder is listed once and then only when it has changed, since one may hold 10,000 pictures.
Used by the dataset views, their check and their changes.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from controlpilot.views.refusals import NotFound
from trainpilot.config.describe import did_you_mean
from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.hashes import SETTLED_NS
from trainpilot.datasets.layouts import Found, Layout, discover
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

Signature = tuple[tuple[str, int], ...]

_KEPT = 64  # datasets whose listing stays in memory
_CAPTIONS_KEPT = 100_000
_FOLDERS = 2000  # folders of one dataset whose times are looked at
_DEPTH = 3
_SUBFOLDERS_KEPT = 20_000


@dataclass
class _Listing:
    signature: Signature
    layout: Layout | None
    problem: PilotError | None


_listings: OrderedDict[Path, _Listing] = OrderedDict()
_captions: OrderedDict[Path, tuple[tuple[int, int], str]] = OrderedDict()
_subfolders: OrderedDict[str, tuple[int, list[str]]] = OrderedDict()
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


def signature_of(root: Path) -> Signature:
    """Times of the folders a layout looks at: they change with every file that comes, goes or is renamed."""
    found: list[tuple[str, int]] = []
    waiting = [(str(root), 0)]
    while waiting and len(found) < _FOLDERS:
        place, depth = waiting.pop()
        try:
            changed = _changed(place)
            found.append((place, changed))
            if depth < _DEPTH:
                waiting += [(one, depth + 1) for one in _inside(place, changed)]
        except OSError:
            found.append((place, -1))
            continue
        metadata = f"{place}/metadata.jsonl"
        try:
            found.append((metadata, _changed(metadata)))
        except OSError:
            continue  # most have none
    return tuple(sorted(found))


def _changed(place: str) -> int:
    return Path(place).stat().st_mtime_ns


def _inside(place: str, changed: int) -> list[str]:
    """The folders in a folder, remembered as long as it has not changed."""
    kept = _subfolders.get(place)
    if kept is not None and kept[0] == changed:
        return kept[1]
    with os.scandir(place) as entries:
        found = [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    if time.time_ns() - changed > SETTLED_NS:  # a younger time stamp may stand for two changes
        with _guard:
            _subfolders[place] = (changed, found)
            while len(_subfolders) > _SUBFOLDERS_KEPT:
                _subfolders.popitem(last=False)
    return found


def layout_of(root: Path) -> Layout:
    """The layout of a folder, remembered until one of its folders changes. Raises PilotError as `discover` does."""
    signature = signature_of(root)
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


def found_picture(workspace: Workspace, name: str, file: str) -> tuple[Path, Layout, Found]:
    """(folder, layout, picture) of a file of a dataset. Only pictures that the layout lists can be named: NotFound."""
    root = folder(workspace, name)
    layout = layout_of(root)
    for one in layout.images:
        if file_of(one, layout.root) == file:
            return root, layout, one
    raise NotFound("picture", file[:200], f"a picture of {name}", "Reload the page: it may have been moved.")
