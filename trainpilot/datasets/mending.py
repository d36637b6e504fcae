"""What fixes consist of, and how they are carried out: files rewritten or taken away, the originals in the trash.

A file that is rewritten is first copied into the trash, then replaced whole; one that is taken away is moved there.
Where the dataset lies in the workspace that is the workspace's trash, which the panel shows; else `.trash/` beside it.
Used by every file of `fixes/`, by `trainpilot dataset fix` and the job `dataset-fix`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainpilot.datasets import duplicates
from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.doctor.reading import read_all
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.images import UNREADABLE, as_rgb, open_undecoded, reason
from trainpilot.datasets.layouts import Found, Layout, discover
from trainpilot.datasets.nesting import settle
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside
from trainpilot.template import check_writable
from trainpilot.trash import Trash
from trainpilot.workspace import Workspace

QUALITY = 97  # of a rewritten JPEG, without colour subsampling: what is lost cannot be seen
_SAVED_AS: dict[str, dict[str, Any]] = {"JPEG": {"quality": QUALITY, "subsampling": 0}, "WEBP": {"lossless": True}}


@dataclass(frozen=True)
class Step:
    """One file. make: its new content; None: it is taken away. why: in words, for the preview."""

    file: Path
    why: str
    make: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Done:
    """What a fix did. entries: of the trash, by which it is undone, the last first."""

    rewritten: int
    taken: int
    entries: tuple[str, ...]
    trash: Path


class Subject:
    """A dataset to be mended."""

    def __init__(self, root: Path, workspace: Workspace, tell: Callable[[int, int], None] | None = None) -> None:
        self.root, self.remark = settle(root)
        self.workspace = workspace
        self.layout: Layout = discover(self.root)
        self._tell = tell

    @cached_property
    def facts(self) -> dict[Path, Facts]:
        """What the doctor measures, by picture; remembered from its check."""
        paths = [found.image for found in self.layout.images]
        with Memo.of(self.workspace.cache) as memo:
            return dict(zip(paths, read_all(paths, memo, self._tell), strict=True))

    @cached_property
    def whole(self) -> list[Found]:
        """The pictures that can be decoded."""
        return [found for found in self.layout.images if not self.facts[found.image].fault]

    @property
    def trash(self) -> Trash:
        inside = self.root.is_relative_to(self.workspace.root)
        return Trash(self.workspace.root if inside else self.root.parent)

    def copies(self) -> list[list[Found]]:
        """Groups of pictures that show the same, the largest of each first."""
        whole = self.whole
        small = np.stack([self.facts[found.image].picture for found in whole]) if whole else np.empty((0, 32, 32, 3))
        pairs = duplicates.find(small.astype(np.uint8))
        firsts: dict[str, int] = {}
        for index, found in enumerate(whole):
            first = firsts.setdefault(self.facts[found.image].sha256, index)
            if first != index:
                pairs.append(duplicates.Pair(first, index, 1.0))
        return [sorted((whole[i] for i in group), key=self._rank) for group in duplicates.groups(pairs)]

    def _rank(self, found: Found) -> tuple[int, int, str]:
        facts = self.facts[found.image]
        return -facts.size[0] * facts.size[1], -facts.length, str(found.image)

    def without(self, gone: Iterable[Found], why: Callable[[Found], str]) -> Iterable[Step]:
        """Steps that take pictures away with what belongs to them alone: caption file, row of metadata.jsonl."""
        going = {found.image: found for found in gone}
        staying = {found.caption_path for found in self.layout.images if found.image not in going}
        rows: dict[Path, set[Path]] = {}
        for found in going.values():
            yield Step(found.image, why(found))
            if found.caption_path and found.caption_path not in staying:
                staying.add(found.caption_path)
                yield Step(found.caption_path, "its caption")
            if found.metadata:
                rows.setdefault(found.metadata, set()).add(found.image)
        for metadata, images in rows.items():
            yield Step(metadata, "without the rows of these pictures", partial(_rows_left, metadata, images))


def apply(dataset: Subject, steps: list[Step], why: str, tell: Callable[[int, int], None] | None = None) -> Done:
    """Carry out steps. Raises PilotError where a file cannot be read or written; what was done until then stays done,
    and its originals are in the trash."""
    check_writable(dataset.workspace)
    trash = dataset.trash
    made = [step for step in steps if step.make]
    gone = [step.file for step in steps if not step.make]
    entries = []
    try:
        if made:
            entries.append(trash.copy([step.file for step in made], why).id)
        for number, step in enumerate(made):
            if tell:
                tell(number, len(steps))
            assert step.make is not None
            write_beside(step.file, step.make())
        if gone:
            entries.append(trash.move(gone, why).id)
    except OSError as problem:
        raise PilotError(
            problem.filename or dataset.root, problem.strerror or problem, "a dataset that can be changed",
            "Check its owner and permissions; the originals are in the trash.",
        ) from problem  # fmt: skip
    return Done(len(made), len(gone), tuple(entries), trash.folder)


def repainted(path: Path, change: Callable[[Image.Image], Image.Image]) -> bytes:
    """A picture file with its pixels changed: same format, upright, 8-bit RGB, its colour profile kept where it fits.

    Raises PilotError where the file is no whole picture.
    """
    try:
        with open_undecoded(io.BytesIO(path.read_bytes())) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            image.load()
            profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
            changed = change(as_rgb(ImageOps.exif_transpose(image)))
    except UNREADABLE as problem:
        raise PilotError(path, reason(problem), "a whole picture", "Take it out first: fix PATH damaged.") from problem
    options = dict(_SAVED_AS.get(kind, {}))
    if profile and kind != "BMP":
        options["icc_profile"] = profile
    kept = io.BytesIO()
    changed.save(kept, kind, **options)
    return kept.getvalue()


def unchanged(image: Image.Image) -> Image.Image:
    """For `repainted`: opening a picture as training does is the whole change."""
    return image


def _rows_left(metadata: Path, gone: set[Path]) -> bytes:
    """metadata.jsonl without the rows of those pictures; every other line as it was."""
    kept = []
    for line in metadata.read_bytes().splitlines(keepends=True):
        name = json.loads(line).get("file_name") if line.strip() else None
        places = (metadata.parent / name, metadata.parent / "images" / name) if name else ()
        if not any(place in gone for place in places):
            kept.append(line)
    return b"".join(kept)
