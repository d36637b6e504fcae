"""A dataset written anew beside the old one: in another layout, split for validation, or with other repeats.

Pictures are copied byte by byte, captions as UTF-8; the new folder appears whole or not at all, and nothing of the old
one changes. Used by `trainpilot dataset convert`, `split` and `balance`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.layouts import MOST_REPEATS, Found, Layout, discover
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import sync_folder

LAYOUTS = ("repeat folder", "repeat folders", "images and captions", "side by side", "metadata", "concepts")


def caption_of(found: Found) -> str | None:
    """A picture's caption as its file or row says; None where it has none. PilotError where the file is no text."""
    if found.caption_text is not None or found.caption_path is None:
        return found.caption_text
    return read_caption(found.caption_path)[0]


def class_of(found: Found, root: Path) -> str:
    """What the picture is of, as its folder says; else the dataset's name."""
    inner = [part for part in found.folder.split("/") if part and part not in ("images", "img")]
    return found.class_tokens or plain(inner[-1] if inner else root.name)


def plain(name: str) -> str:
    """A folder's name without a leading N_."""
    number, _, rest = name.partition("_")
    return rest if rest and number.isdigit() else name


def write(
    images: Sequence[Found],
    root: Path,
    target: Path,
    layout: str,
    tell: Callable[[int, int], None] | None = None,
) -> Layout:
    """Write these pictures of the dataset `root` as a new dataset `target` in a layout of LAYOUTS.

    Raises PilotError where the target exists or the layout cannot hold them: a repeat folder is of one class.
    """
    if layout not in LAYOUTS:
        raise PilotError("layout", layout, ", ".join(LAYOUTS), "Choose one of these.")
    places = _places(images, root, layout)
    if layout == "repeat folder":
        target = target.with_name(_repeat_name(images, root))
    with appearing(target) as folder:
        rows = []
        for number, found in enumerate(images):
            if tell:
                tell(number, len(images))
            place = folder / places[found.image]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found.image, place)
            text = caption_of(found)
            if layout == "metadata":
                rows.append({"file_name": places[found.image], "text": text})
            elif text is not None:
                beside = folder / "captions" if layout == "images and captions" else place.parent
                beside.mkdir(exist_ok=True)
                (beside / f"{place.stem}.txt").write_text(f"{text}\n", encoding="utf-8")
        if rows:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return discover(target)


def target_of(root: Path, layout: str, images: Sequence[Found]) -> Path:
    """Where `write` puts a dataset when nobody names a place: beside the old one."""
    if layout == "repeat folder":
        return root.with_name(_repeat_name(images, root))
    return root.with_name(f"{plain(root.name)}_{layout.replace(' and ', '_').replace(' ', '_')}")


def _repeat_name(images: Sequence[Found], root: Path) -> str:
    kinds = {(found.repeats, class_of(found, root)) for found in images}
    if len(kinds) > 1:
        given = f"{len(kinds)} concepts: {', '.join(sorted(name for _, name in kinds))}"
        raise PilotError("layout", given, "one concept", "Choose `repeat folders`, which holds several.")
    repeats, name = next(iter(kinds))
    return f"{repeats}_{name}"


def _places(images: Sequence[Found], root: Path, layout: str) -> dict[Path, str]:
    """Where each picture goes, relative to the new dataset; names that would meet get their folder's before them."""
    found: dict[Path, str] = {}
    stems: Counter[tuple[str, str]] = Counter()
    for one in images:
        name = class_of(one, root)
        folder = {
            "repeat folders": f"{one.repeats}_{name}",
            "concepts": name,
            "images and captions": "images",
            "metadata": "images",
        }.get(layout, "")
        stem = one.image.stem
        while stems[(folder, stem)]:
            stem = f"{name}_{stem}" if not stem.startswith(f"{name}_") else f"{stem}_"
        stems[(folder, stem)] += 1
        found[one.image] = f"{folder}/{stem}{one.image.suffix}" if folder else f"{stem}{one.image.suffix}"
    return found


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end; nothing stays where that fails."""
    if os.path.lexists(target):
        raise PilotError(target, "exists already", "a new folder", "Name another one with --to.")
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def split(images: Iterable[Found], share: float, seed: int, copies: Iterable[Sequence[Found]] = ()) -> list[Found]:
    """The pictures for validation: about `share` of them, at least one, chosen by name and seed alone.

    copies: groups that stay on one side, since a version of a picture that is trained on validates nothing.
    """
    every = list(images)
    leader = {one.image: group[0].image for group in copies for one in group}
    names = sorted({leader.get(found.image, found.image) for found in every}, key=lambda path: _draw(path, seed))
    wanted = max(1, round(share * len(names)))
    if wanted >= len(names):
        raise PilotError("share", f"{share:g} of {len(names)} pictures", "some to train on", "Lower --share.")
    chosen = set(names[:wanted])
    return [found for found in every if leader.get(found.image, found.image) in chosen]


def _draw(path: Path, seed: int) -> str:
    return hashlib.sha256(f"{seed} {path.name}".encode("utf-8", "surrogatepass")).hexdigest()


def balanced(counts: Mapping[str, int]) -> dict[str, int]:
    """Repeats by concept that make all concepts about equally often seen: the largest keeps one."""
    most = max(counts.values())
    return {name: min(MOST_REPEATS, max(1, round(most / count))) for name, count in counts.items()}


def with_repeats(images: Iterable[Found], root: Path, repeats: Mapping[str, int]) -> list[Found]:
    """The same pictures, seen as often as their class says."""
    return [replace(found, repeats=repeats[class_of(found, root)]) for found in images]


def repeats_for(steps: int, epochs: int, images: int, batch: int) -> int:
    """Repeats for which that many epochs make about that many steps: steps / epochs / images * batch, at least 1."""
    return max(1, round(steps / epochs / images * batch))
