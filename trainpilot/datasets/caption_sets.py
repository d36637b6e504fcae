"""Caption sets: all captions of a dataset under a name, so that one can be trained against another (A and B).

A set is `.captions/sets/<name>.jsonl` in the dataset, one row a picture: {"image", "text"}, the text null where the
picture has none. Saving never replaces a set; using one is an edit with a journal, so that it can be undone.
Used by the verbs `captions` and `caption`, and by the panel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainpilot.datasets.caption_files import CaptionFiles
from trainpilot.datasets.caption_journal import FOLDER
from trainpilot.datasets.layouts import listed_names
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside

_NAME = re.compile(r"[\w][\w.-]{0,63}")
NOW = "now"  # stands for the present captions where sets are compared
Texts = dict[str, str | None]


@dataclass(frozen=True)
class CaptionSet:
    """A set as it is listed. captions: how many pictures have one in it; t: when it was saved, unix seconds."""

    name: str
    captions: int
    pictures: int
    t: float


def sets(root: Path) -> list[CaptionSet]:
    """All sets of a dataset, by name."""
    found = []
    for path in sorted(_folder(root).glob("*.jsonl")) if _folder(root).is_dir() else ():
        texts = _read(path)
        have = sum(text is not None for text in texts.values())
        found.append(CaptionSet(path.stem, have, len(texts), path.stat().st_mtime))
    return found


def check_new(root: Path, name: str) -> Path:
    """The file that a new set gets. PilotError where there is one, or the name cannot be a file's."""
    path = _place(root, name)
    if path.exists() or name == NOW:
        raise PilotError("set", name, "a name that no set has", "Choose another name; a set is never replaced.")
    return path


def save(root: Path, name: str, texts: Mapping[str, str | None]) -> Path:
    """Keep texts as a set of that name. PilotError as `check_new`."""
    path = check_new(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"image": image, "text": text}) for image, text in texts.items()]
    write_beside(path, "".join(f"{row}\n" for row in rows).encode())
    return path


def read(root: Path, name: str) -> Texts:
    """The texts of a set by picture. PilotError lists the sets there are."""
    path = _place(root, name)
    if not path.is_file():
        names = ", ".join(one.name for one in sets(root)) or "none is saved yet"
        raise PilotError("set", name, names, "Save one with: trainpilot captions DATASET save NAME")
    return _read(path)


def present(files: CaptionFiles) -> Texts:
    """The captions as they are now, as a set holds them."""
    return {name: place.text for name, place in files.places.items()}


def changes(files: CaptionFiles, wanted: Texts) -> tuple[Texts, list[str]]:
    """What using a set changes, and notes. Pictures that the set does not know keep their captions."""
    unknown = [name for name in files.places if name not in wanted]
    gone = [name for name in wanted if name not in files.places]
    notes = [f"not in the set, left as they are: {listed_names(unknown)}"] if unknown else []
    notes += [f"in the set, but no longer in the dataset: {listed_names(gone)}"] if gone else []
    now = present(files)
    return {name: wanted[name] for name in now if name in wanted and wanted[name] != now[name]}, notes


def as_lines(several: list[Texts]) -> Texts:
    """One caption of several lines from several sets: alternatives, one of which is drawn with captions.wildcards."""
    found: Texts = {}
    for name in dict.fromkeys(name for one in several for name in one):
        lines = [line.strip() for one in several for line in (one.get(name) or "").split("\n") if line.strip()]
        found[name] = "\n".join(dict.fromkeys(lines)) if lines else None
    return found


def _read(path: Path) -> Texts:
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        texts = {str(row["image"]): row["text"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise PilotError(path, f"not a caption set: {error}", "rows of image and text", "Remove the file.") from error
    if any(not isinstance(text, str | None) for text in texts.values()):
        raise PilotError(path, "a text that is none", "rows of image and text", "Remove the file.")
    return texts


def _folder(root: Path) -> Path:
    return root / FOLDER / "sets"


def _place(root: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise PilotError("set", name[:80], "letters, digits, _ - and dots, at most 64", "Choose another name.")
    return _folder(root) / f"{name}.jsonl"
