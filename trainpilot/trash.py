"""The trash: what a person deletes or replaces is moved to `.trash/`, and can be put back.

An entry is a folder `.trash/<time>-<number>/` with `entry.json` (why, when, from where) and the files. Nothing here
deletes anything. Used by the panel's views (`controlpilot.views.trash`) and by what mends datasets.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json, write_json

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
MOST_LISTED = 200


class NotKept(PilotError):
    """No such entry."""


class Occupied(PilotError):
    """Something new is where an entry should be put back."""


@dataclass(frozen=True)
class Kept:
    """One file or folder: where it was, and where it lies in the trash."""

    origin: Path
    kept: Path


@dataclass(frozen=True)
class Entry:
    """One deletion, which is undone as a whole. when: unix seconds; copies: the originals are still in place."""

    id: str
    why: str
    when: float
    files: list[Kept]
    copies: bool = False


class Trash:
    """The trash of a workspace, or of another folder: what lies below `root` can be kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".trash"

    def move(self, paths: Sequence[Path], why: str) -> Entry:
        """Move files or folders of the workspace into one new entry. Raises PilotError for a path outside of it."""
        return self._take(paths, why, copies=False)

    def copy(self, paths: Sequence[Path], why: str) -> Entry:
        """Keep what files hold now, before they are replaced in place."""
        return self._take(paths, why, copies=True)

    def _take(self, paths: Sequence[Path], why: str, *, copies: bool) -> Entry:
        places = [self._inside(path) for path in paths]
        ident = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        entry = self.folder / ident
        entry.mkdir(parents=True)
        files = [Kept(path, entry / f"{number}" / path.name) for number, path in enumerate(places)]
        # The record comes first: files in the trash without one could not be put back after a crash.
        write_json(entry / "entry.json", {
            "schema": 1, "why": why, "when": time.time(), "copies": copies,
            "files": [{"from": str(one.origin.relative_to(self.root)), "kept": str(one.kept.relative_to(entry))}
                      for one in files],
        })  # fmt: skip
        for one in files:
            one.kept.parent.mkdir()
            if not copies:
                one.origin.rename(one.kept)
            else:
                shutil.copy2(one.origin, one.kept)
        return self.entry(ident)

    def _inside(self, path: Path) -> Path:
        place = path.parent.resolve() / path.name
        if not place.is_relative_to(self.root.resolve()) or place.is_relative_to(self.folder.resolve()):
            raise PilotError("trash", path, "a path inside the workspace", "Move it yourself.")
        return self.root / place.relative_to(self.root.resolve())

    def entry(self, ident: str) -> Entry:
        """One entry. Raises NotKept."""
        value = read_json(self.folder / ident / "entry.json") if _ID.fullmatch(ident) else None
        if value is None:
            raise NotKept("trash", ident[:40], "an entry of the trash", "It may have been put back already.")
        base = self.folder / ident
        files = [Kept(self.root / one["from"], base / one["kept"]) for one in value["files"]]
        return Entry(ident, str(value["why"]), float(value["when"]), files, bool(value.get("copies")))

    def entries(self) -> list[Entry]:
        """The newest entries first."""
        found = sorted((p.parent.name for p in self.folder.glob("*/entry.json")), reverse=True)
        return [self.entry(name) for name in found if _ID.fullmatch(name)][:MOST_LISTED]

    def restore(self, ident: str) -> Entry:
        """Put an entry back as it was. Raises Occupied where something new has its place, and changes nothing then.

        What a kept copy replaces is itself kept, as a new entry.
        """
        entry = self.entry(ident)
        present = [one for one in entry.files if os.path.lexists(one.kept)]
        taken = [one.origin.name for one in present if os.path.lexists(one.origin)]
        if taken and not entry.copies:
            raise Occupied(
                "trash", f"{', '.join(taken[:5])} exists again", "a free place", "Rename or delete the new one first."
            )
        if entry.copies and taken:
            self.move([one.origin for one in present if os.path.lexists(one.origin)], f"before undo: {entry.why}")
        for one in present:
            one.origin.parent.mkdir(parents=True, exist_ok=True)
            one.kept.rename(one.origin)
        (self.folder / ident / "entry.json").rename(self.folder / ident / "restored.json")
        return entry
