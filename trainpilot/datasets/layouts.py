"""Finding the pictures of a folder and the caption of each, whichever of the six usual layouts it has.

| kind | looks like |
|---|---|
| repeat folder | `10_zorp/` with pictures: seen 10 times an epoch, class `zorp` |
| repeat folders | a folder of such folders, or its parent with an `img/` or `images/` of them |
| images and captions | `images/` and `captions/` beside one another, matched by name |
| side by side | pictures with their caption files beside them |
| metadata | `metadata.jsonl` with `file_name` and a caption field, beside the pictures or beside `images/` |
| concepts | sub-folders, each of one of the last three kinds, its name the class |

The folder itself or its inner one may be given. Hidden files and folders (`.trash`, `._x.jpg`) are never looked at.
Used by the table and by whatever shows a dataset. Only names are read here, and `metadata.jsonl`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath

from trainpilot.datasets.images import ENDINGS
from trainpilot.errors import PilotError

LARGEST_METADATA = 256 << 20  # bytes
MOST_REPEATS = 10_000  # as datasets.repeats
MAX_LISTED = 5  # names in a note; the rest is counted
_REPEATS = re.compile(r"^([0-9]{1,9})_(.+)$")
_SET_ASIDE = {"__macosx", "@eadir", "captions", "masks"}


@dataclass(frozen=True)
class Found:
    """One picture. folder is relative to the dataset, "" for its top.

    caption_text comes from a row of `metadata`, the metadata.jsonl that lists the picture; None: no file lists it.
    """

    image: Path
    folder: str = ""
    caption_path: Path | None = None
    caption_text: str | None = None
    repeats: int = 1
    class_tokens: str = ""
    mask: Path | None = None
    metadata: Path | None = None


@dataclass
class Layout:
    """What a folder holds. notes: what was left out or looks unintended, one sentence each."""

    kind: str
    root: Path
    images: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def discover(
    root: Path,
    *,
    caption_extension: str = ".txt",
    caption_column: str = "text",
    repeats: int | None = None,
    masks: Path | None = None,
) -> Layout:
    """Find the layout of a folder and its pictures, sorted by name.

    repeats overrides what N_name says. masks: a folder of masks; a picture's mask has its name (any image ending).
    Raises PilotError where the folder is missing, holds no picture, or its metadata.jsonl is wrong.
    """
    _require_folder(root)
    search = _Search(root, caption_extension, caption_column, masks.resolve() if masks else None)
    layout = search.any_layout()
    if not layout.images:
        raise PilotError(
            root, f"no pictures ({_inventory(root)})", f"a folder with {', '.join(sorted(ENDINGS))} files in one of "
            "the layouts: N_name/, images/ + captions/, side by side, metadata.jsonl, one folder a concept",
            "Put pictures there, or give the folder that holds them.",
        )  # fmt: skip
    if repeats is not None:
        layout.images = [_with(found, repeats=repeats) for found in layout.images]
    if masks is not None:
        layout.images = _with_masks(layout, masks)
    return layout


class _Search:
    """One look through a dataset; what all steps share."""

    def __init__(self, root: Path, caption_extension: str, caption_column: str, masks: Path | None) -> None:
        self.root = root
        self.extension = caption_extension
        self.column = caption_column
        self.masks = masks
        self.notes: list[str] = []
        self._listings: dict[Path, list[str]] = {}

    def any_layout(self) -> Layout:
        if self.root.name == "images" and (self.root.parent / "metadata.jsonl").is_file():
            self.root = self.root.parent
        top = self.root
        if (top / "metadata.jsonl").is_file() or (top / "images" / "metadata.jsonl").is_file():
            return self.layout("metadata", self.one_folder(top))
        if self.images(top):
            repeated = _repeats_of(top)
            self.leave_out(top, "pictures lie directly in the folder", self.folders_with_images(top))
            return self.layout("repeat folder" if repeated else self.leaf_kind(top), self.one_folder(top))
        for parent in (top, top / "img", top / "images"):
            repeated_folders = [folder for folder in self.folders(parent) if _repeats_of(folder)]
            if any(self.one_folder(folder, quiet=True) for folder in repeated_folders):
                others = [folder for folder in self.folders_with_images(parent) if folder not in repeated_folders]
                self.leave_out(parent, "its other folders are named N_name", others)
                if parent != top and self.images(parent):
                    self.say(f"pictures directly in {parent.name}/ are left out: it holds N_name folders")
                return self.layout("repeat folders", _joined(self.one_folder(folder) for folder in repeated_folders))
        found = self.one_folder(top, quiet=True)
        if found:
            self.leave_out(top, "there is an images/ folder", self.folders_with_images(top, without="images"))
            return self.layout("images and captions", self.one_folder(top))
        concepts = [folder for folder in self.folders(top) if self.one_folder(folder, quiet=True)]
        return self.layout("concepts", _joined(self.one_folder(folder, concept=True) for folder in concepts))

    def files(self, folder: Path) -> list[str]:
        """Visible files of a folder, read from the disk once; nothing where it does not exist."""
        if folder not in self._listings:
            self._listings[folder] = _visible_files(folder)
        return self._listings[folder]

    def images(self, folder: Path) -> list[Path]:
        return [folder / name for name in self.files(folder) if _is_image(name)]

    def layout(self, kind: str, images: list[Found]) -> Layout:
        return Layout(kind, self.root, images, self.notes)

    def leaf_kind(self, folder: Path) -> str:
        return "images and captions" if caption_folder(folder) else "side by side"

    def one_folder(self, folder: Path, *, quiet: bool = False, concept: bool = False) -> list[Found]:
        """The pictures of one folder that is not itself a folder of folders. quiet: only look, note nothing."""
        count, name = _repeats_of(folder) or (1, folder.name if concept else "")
        for place in (folder, folder / "images"):
            if (place / "metadata.jsonl").is_file():
                return self.listed(place, count, name, quiet)
        place = folder if self.images(folder) else folder / "images"
        images = self.images(place)
        captions, where = self.captions_for(place), self.relative(place) if images else ""
        found = [Found(image, where, captions.get(image.stem), None, count, name) for image in images]
        if not quiet and found:
            if _REPEATS.match(folder.name) and not _repeats_of(folder):
                self.say(f"{self.shown(folder)}: its number is not taken as repeats (1 to {MOST_REPEATS})")
            self.check_pairs(place, captions, found)
        return found

    def captions_for(self, place: Path) -> dict[str, Path]:
        """Caption file by picture name; the captions' folder wins over a file beside the picture."""
        apart = caption_folder(place)
        holders = [place, *([apart] if apart else [])]
        end = len(self.extension)
        return {
            name[:-end]: holder / name
            for holder in holders
            for name in self.files(holder)
            if name.endswith(self.extension)
        }

    def check_pairs(self, place: Path, captions: dict[str, Path], found: list[Found]) -> None:
        stems = Counter(one.image.stem for one in found)
        twins = [stem for stem, count in stems.items() if count > 1]
        if twins:
            self.say(f"{self.shown(place)}: pictures of one name share one caption: {listed_names(twins)}")
        lost = sorted(path.name for stem, path in captions.items() if stem not in stems)
        if lost:
            self.say(f"{self.shown(place)}: captions without a picture: {listed_names(lost)}")

    def listed(self, place: Path, repeats: int, name: str, quiet: bool) -> list[Found]:
        """The pictures that metadata.jsonl names, and those beside it that it does not."""
        metadata = place / "metadata.jsonl"
        rows = _read_metadata(metadata, self.column)
        inner = place / "images"
        found, missing = [], []
        seen: set[Path] = set()
        for file_name, caption in rows:
            image = next((at / file_name for at in (place, inner) if (at / file_name).is_file()), None)
            if image is None:
                missing.append(file_name)
            elif image not in seen:
                seen.add(image)
                where = self.relative(image.parent)
                found.append(Found(image, where, None, caption, repeats, name, metadata=metadata))
            elif not quiet:
                self.say(f"{self.shown(metadata)}: {printable(file_name)} is listed twice; its first row counts")
        unlisted = [image for image in (*self.images(place), *self.images(inner)) if image not in seen]
        beside = self.captions_for(place) | self.captions_for(inner)
        found += [Found(one, self.relative(one.parent), beside.get(one.stem), None, repeats, name) for one in unlisted]
        if not quiet:
            if missing:
                self.say(f"{self.shown(metadata)}: listed pictures that do not exist: {listed_names(missing)}")
            if unlisted:
                names = listed_names(one.name for one in unlisted)
                self.say(
                    f"{self.shown(metadata)}: pictures without a row, taken with their caption files, if any: {names}"
                )
        return sorted(found, key=lambda one: str(one.image))

    def folders(self, parent: Path) -> list[Path]:
        """Visible sub-folders that may hold pictures to train, sorted."""
        if not parent.is_dir():
            return []
        inner = sorted(entry for entry in parent.iterdir() if not entry.name.startswith(".") and entry.is_dir())
        return [one for one in inner if one.name.casefold() not in _SET_ASIDE and one.resolve() != self.masks]

    def folders_with_images(self, parent: Path, without: str = "") -> list[Path]:
        return [folder for folder in self.folders(parent) if folder.name != without and self.images(folder)]

    def leave_out(self, parent: Path, reason: str, folders: list[Path]) -> None:
        if folders:
            names = listed_names(f"{folder.name}/ ({len(self.images(folder))})" for folder in folders)
            self.say(f"{self.shown(parent)}: pictures in these sub-folders are left out, since {reason}: {names}")
        aside = [one for one in ("masks",) if (parent / one).is_dir() and (parent / one).resolve() != self.masks]
        if aside and self.images(parent / "masks"):
            self.say(f"{self.shown(parent / 'masks')} is not used; set datasets.masks to it to train with masks")

    def relative(self, path: Path) -> str:
        return "" if path == self.root else path.relative_to(self.root).as_posix()

    def shown(self, path: Path) -> str:
        return printable(self.relative(path) or self.root.name)

    def say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def caption_folder(place: Path) -> Path | None:
    """`captions/` beside `images/`, where that was given, or inside a folder of pictures; None: there is none."""
    candidates = [place / "captions", *([place.parent / "captions"] if place.name == "images" else [])]
    return next((folder for folder in candidates if folder.is_dir()), None)


def printable(name: object) -> str:
    """A file name that cannot move the cursor or break a line of a log."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in str(name))


def listed_names(names: Iterable[str]) -> str:
    """The first few names and how many more there are."""
    every = [printable(name) for name in names]
    rest = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return ", ".join(every[:MAX_LISTED]) + rest


def _require_folder(root: Path) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise PilotError(root, "a file", "a folder of pictures", "Give the folder that holds it.")
    parent = next(folder for folder in root.parents if folder.is_dir())
    around = [one.name for one in sorted(parent.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    wanted = root.relative_to(parent).parts[0]
    by_class = {name.split("_", 1)[-1]: name for name in around}
    close = get_close_matches(wanted, around, 3, 0.5) or [by_class[n] for n in get_close_matches(wanted, by_class, 3)]
    hint = f"Did you mean {', '.join(str(parent / name) for name in close)}?" if close else "Check the path."
    there = f"{parent} holds {listed_names(around)}" if around else f"{parent} holds no folders"
    raise PilotError(root, "a path that does not exist", f"a folder of pictures; {there}", hint)


def _visible_files(folder: Path) -> list[str]:
    """Names of a folder's files that are not hidden, sorted. Raises PilotError where it cannot be read."""
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    except OSError as problem:
        raise PilotError(
            folder, problem.strerror or problem, "a folder that can be read", "Check its owner and permissions."
        ) from problem


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS  # noqa: PTH122 - a Path for each of many names is slow


def _repeats_of(folder: Path) -> tuple[int, str] | None:
    """(repeats, class) of a folder named N_name; a larger N, such as the date in 20260101_walk, is part of a name."""
    match = _REPEATS.match(folder.name)
    return (int(match[1]), match[2]) if match and 1 <= int(match[1]) <= MOST_REPEATS else None


def _read_metadata(path: Path, column: str) -> list[tuple[str, str | None]]:
    """(file_name, caption) rows. Raises PilotError that names file and line."""
    if path.stat().st_size > LARGEST_METADATA:
        raise PilotError(path, "more than 256 MiB", "one short row a picture", "Is this the right file?")
    rows = []
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise PilotError(path, f"not UTF-8 ({problem})", "UTF-8, one JSON object a line", "Save it as UTF-8.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise PilotError(where, f"not JSON ({problem})", "one JSON object a line", "Correct the line.") from None
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            raise PilotError(where, printable(line[:80]), 'an object with "file_name"', "Add the picture's name.")
        if _escapes(name):
            raise PilotError(
                where, printable(name), "a path inside the dataset's folder", "Move the picture there, or drop the row."
            )
        if column not in row:
            raise PilotError(
                where,
                f"no field {column!r}; it has {', '.join(map(printable, row))}",
                f"a row with the caption in {column!r}",
                "Set datasets.caption_column to the field that holds captions.",
            )
        caption = row[column]
        if caption is not None and not isinstance(caption, str):
            raise PilotError(where, f"{column} = {caption!r}", "a text", "Put the caption between quotation marks.")
        rows.append((name, caption))
    return rows


def _escapes(name: str) -> bool:
    """True for whatever could lead out of the folder, on any system."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    return bool(windows.drive or windows.root or posix.is_absolute() or ".." in windows.parts or "\0" in name)


def _with_masks(layout: Layout, masks: Path) -> list[Found]:
    """Give each picture the mask of its name: under the same sub-folder, else directly in the masks' folder."""
    _require_folder(masks)
    known: dict[Path, dict[str, Path]] = {}

    def look(folder: Path, stem: str) -> Path | None:
        if folder not in known:
            known[folder] = {Path(name).stem: folder / name for name in _visible_files(folder) if _is_image(name)}
        return known[folder].get(stem)

    found = [_with(one, mask=look(masks / one.folder, one.image.stem) or look(masks, one.image.stem))
             for one in layout.images]  # fmt: skip
    bare = [one.image.name for one in found if one.mask is None]
    if len(bare) == len(found):
        raise PilotError(
            masks,
            "no mask with the name of a picture",
            "masks named like their pictures",
            "Rename them, or unset masks.",
        )
    if bare:
        layout.notes.append(f"pictures without a mask, trained whole: {listed_names(bare)}")
    return found


def _with(found: Found, *, repeats: int | None = None, mask: Path | None = None) -> Found:
    return replace(found, repeats=found.repeats if repeats is None else repeats, mask=mask or found.mask)


def _joined(parts: Iterable[list[Found]]) -> list[Found]:
    return [found for part in parts for found in part]


def _inventory(root: Path, depth: int = 4) -> str:
    """What is there instead of pictures: endings by number, and pictures that lie deeper than a layout looks."""
    endings: Counter[str] = Counter()
    deeper: Counter[str] = Counter()
    waiting = [(root, 0)]
    while waiting and sum(endings.values()) < 10_000:
        folder, level = waiting.pop()
        for entry in sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else ():
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and level < depth:
                waiting.append((entry, level + 1))
            elif entry.suffix.lower() in ENDINGS:
                deeper[printable(folder.relative_to(root))] += 1
            elif entry.is_file():
                endings[printable(entry.suffix.lower()) or "without ending"] += 1
    told = [f"{count} {ending}" for ending, count in endings.most_common(MAX_LISTED)]
    told += [f"{count} pictures in {folder}/, too deep" for folder, count in deeper.most_common(MAX_LISTED)]
    return f"found up to {depth} folders deep: {', '.join(told)}" if told else "it is empty"
