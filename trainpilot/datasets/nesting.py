"""A dataset given one level too high or too low: understood where only one can be meant, else a sentence what to give.

Used by the doctor and the fixes; the layouts themselves (`layouts.discover`) look only where they are told to.
"""

from __future__ import annotations

from pathlib import Path

from trainpilot.datasets.images import ENDINGS
from trainpilot.datasets.layouts import discover, listed_names, printable
from trainpilot.errors import PilotError

_DEPTH = 3  # levels below the given folder that are looked at
_MOST = 200  # folders looked at


def settle(root: Path) -> tuple[Path, str]:
    """The folder of the dataset that `root` means, and a remark where it is another one than given.

    Raises PilotError as `discover` does, and where several folders below could be meant.
    """
    root = root.absolute()
    above = _above(root)
    if above is not None:
        return above, f"{printable(root.name)}/ is a part of {printable(above.name)}/, which was checked as a whole"
    try:
        discover(root)
    except PilotError as problem:
        if not root.is_dir():
            raise
        below = _below(root)
        if not below:
            raise
        if len(below) > 1:
            names = listed_names(str(path.relative_to(root)) for path in below)
            raise PilotError(
                root, f"no pictures here, but {len(below)} datasets below: {names}", "one dataset", "Give one of these."
            ) from problem
        shown = printable(below[0].relative_to(root))
        return below[0], f"the pictures lie deeper than the given folder: {shown}/ was checked"
    return root, ""


def _above(root: Path) -> Path | None:
    """The dataset of which only the captions or the masks were given, or only the images/ that have them beside."""
    parent = root.parent
    if root.name in ("captions", "masks") and not _pictures(root) and (parent / "images").is_dir():
        return parent
    if root.name == "images" and (parent / "captions").is_dir() and not _visible(root):
        return parent
    return None


def _below(root: Path) -> list[Path]:
    """The topmost folders below that are datasets."""
    found: list[Path] = []
    waiting = [(folder, 1) for folder in _visible(root)]
    looked = 0
    while waiting and looked < _MOST:
        folder, depth = waiting.pop(0)
        looked += 1
        try:
            discover(folder)
            found.append(folder)
        except PilotError:
            # No dataset itself; it may hold one.
            if depth < _DEPTH:
                waiting += [(inner, depth + 1) for inner in _visible(folder)]
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in ENDINGS for path in folder.iterdir()) if folder.is_dir() else False
