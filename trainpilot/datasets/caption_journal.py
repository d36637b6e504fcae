"""Changing many caption files so that it can be undone, whatever happens in between.

Every edit has a journal, `.captions/edits/<number>.jsonl` in the dataset: a header, then a record for each file with
its bytes before and after, on the disk before the file is touched. Files are replaced one at a time, each whole. A
process that dies leaves every file in one of its two states, and undo goes by what it finds. An edit that was taken
back keeps its journal, as `<number>.undone.jsonl`, and can be done again. Used by the caption tools and captioners.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainpilot.datasets.caption_files import Replacement, check_inside
from trainpilot.datasets.layouts import listed_names
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import sync_folder, write_beside
from trainpilot.runs.locks import FolderLock

FOLDER = ".captions"
SCHEMA = 1
_DONE, _UNDONE = ".jsonl", ".undone.jsonl"


@dataclass(frozen=True)
class Edit:
    """One edit. about: what was done, as a person would say it; t: unix seconds; files: how many it changes."""

    number: int
    about: str
    t: float
    files: int
    undone: bool


@dataclass(frozen=True)
class Turned:
    """What an undo or redo did. left: files that were changed since, and stay."""

    edit: Edit
    files: int
    left: tuple[str, ...]


class Journal:
    """The edits of one dataset. root: the dataset's own folder, absolute and without links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER / "edits"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other edits of the dataset out. PilotError where one is going on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.root / FOLDER / "lock")
        if not lock.acquire():
            given = "another edit or captioner is writing them"
            raise PilotError(f"captions of {self.root.name}", given, "one at a time", "Wait for it, or stop it.")
        try:
            yield
        finally:
            lock.release()

    def apply(self, about: str, replacements: Iterable[Replacement]) -> Edit | None:
        """Make one edit of these replacements; None where there are none. PilotError where a file changed since."""
        wanted = list(replacements)
        if not wanted:
            return None
        with self.held():
            open_edit = self.begin(about)
            open_edit.replace(wanted)
            return self._edit(open_edit.file)

    def begin(self, about: str) -> OpenEdit:
        """An edit that grows: for a captioner, whose captions come one after another. The caller holds the journal."""
        number = max((_number(path) for path in self._files()), default=0) + 1
        file = self.folder / f"{number:06d}{_DONE}"
        header = {"schema": SCHEMA, "t": round(time.time(), 3), "about": about}
        write_beside(file, json.dumps(header).encode() + b"\n")
        return OpenEdit(self, file)

    def take_up(self, number: int) -> OpenEdit | None:
        """The growing edit of an earlier attempt, its unfinished replacements made; None where it was undone."""
        file = self.folder / f"{number:06d}{_DONE}"
        if not file.is_file():
            return None
        data = file.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a torn record: its file was not touched
            os.truncate(file, whole)
        for path, states in self._records(file).items():
            if _present(path) == states[-2]:
                _put(path, states[-1])
        return OpenEdit(self, file)

    def edits(self) -> list[Edit]:
        """All edits, the oldest first."""
        return [self._edit(path) for path in self._files()]

    def undo(self, *, leave_changed: bool = False) -> Turned:
        """Take the newest edit back: every file has the bytes it had before.

        Files that were changed by something else since are refused, all of them named and nothing touched, or left as
        they are under `leave_changed`.
        """
        with self.held():
            done = [path for path in self._files() if not path.name.endswith(_UNDONE)]
            if not done:
                raise PilotError("undo", "no edit", "an edit that was made here", "See the history.")
            return self._turn(done[-1], back=True, leave_changed=leave_changed)

    def redo(self, *, leave_changed: bool = False) -> Turned:
        """Make the edit again that was undone last. PilotError where another one was made after it."""
        with self.held():
            files = self._files()
            newest_done = max((_number(path) for path in files if not path.name.endswith(_UNDONE)), default=0)
            undone = [path for path in files if path.name.endswith(_UNDONE) and _number(path) > newest_done]
            if not undone:
                raise PilotError("redo", "no undone edit", "an edit that was undone last", "See the history.")
            return self._turn(undone[0], back=False, leave_changed=leave_changed)

    def _turn(self, file: Path, *, back: bool, leave_changed: bool) -> Turned:
        edit = self._edit(file)
        records = self._records(file)
        found = {path: _present(path) for path in records}
        left = tuple(
            path.relative_to(self.root).as_posix() for path, states in records.items() if found[path] not in states
        )
        if left and not leave_changed:
            word = "undo" if back else "redo"
            raise PilotError(
                word, f"changed since {edit.about!r}: {listed_names(left)}", "files as that edit left them",
                f"To {word} it for the other files, leave these as they are (--leave-changed).",
            )  # fmt: skip
        changed = 0
        for path, states in records.items():
            wanted = states[0] if back else states[-1]
            if found[path] in states and found[path] != wanted:
                _put(path, wanted)
                changed += 1
        target = self.folder / f"{edit.number:06d}{_UNDONE if back else _DONE}"
        file.rename(target)
        sync_folder(self.folder)
        return Turned(self._edit(target), changed, left)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        found = (path for path in self.folder.iterdir() if path.name.endswith(_DONE) and path.name[:6].isdigit())
        return sorted(found, key=_number)

    def _edit(self, file: Path) -> Edit:
        header = _lines(file)[0]
        return Edit(
            number=_number(file),
            about=str(header.get("about", "")),
            t=float(header.get("t", 0)),
            files=len(self._records(file)),
            undone=file.name.endswith(_UNDONE),
        )

    def _records(self, file: Path) -> dict[Path, list[bytes | None]]:
        """The states of each file in their order: before, then after each of its replacements.

        Raises PilotError where a record leads out of the dataset: a journal may have come with it from anywhere.
        """
        found: dict[Path, list[bytes | None]] = {}
        for record in _lines(file)[1:]:
            relative = PurePosixPath(str(record["file"]))
            path = self.root / relative
            if relative.is_absolute() or ".." in relative.parts or FOLDER in relative.parts[:1]:
                raise PilotError(file, f"a record of {relative}", "files of the dataset", "Remove that journal.")
            check_inside(self.root, path)
            states = found.setdefault(path, [_bytes(record["before"])])
            states.append(_bytes(record["after"]))
        return found


class OpenEdit:
    """An edit that may still grow. file: its journal."""

    def __init__(self, journal: Journal, file: Path) -> None:
        self.journal, self.file = journal, file

    @property
    def number(self) -> int:
        return _number(self.file)

    def replace(self, replacements: Iterable[Replacement]) -> None:
        """Record these, then replace the files, one at a time. PilotError, and nothing touched, where one changed."""
        wanted = list(replacements)
        for one in wanted:
            check_inside(self.journal.root, one.file)
            if _present(one.file) != one.before:
                raise PilotError(one.file, "changed meanwhile", "the file as it was read", "Try again.")
        with self.file.open("ab") as out:
            for one in wanted:
                record = {
                    "file": one.file.relative_to(self.journal.root).as_posix(),
                    "before": _text(one.before),
                    "after": _text(one.after),
                }
                out.write(json.dumps(record).encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
        for one in wanted:
            _put(one.file, one.after)


def _put(file: Path, data: bytes | None) -> None:
    """The file holds these bytes, or is gone: what it held is in the journal."""
    if data is None:
        file.unlink(missing_ok=True)
        sync_folder(file.parent)
    else:
        write_beside(file, data)


def _present(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _lines(file: Path) -> list[dict[str, Any]]:
    """Header and records; a torn last line is none."""
    data = file.read_bytes()
    try:
        found = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except ValueError as error:
        raise PilotError(file, f"not a journal: {error}", "a journal of caption edits", "Remove that file.") from error
    if not found or found[0].get("schema") != SCHEMA:
        raise PilotError(file, "not a journal of this version", f"schema {SCHEMA}", "Use the version that wrote it.")
    return found


def _number(file: Path) -> int:
    return int(file.name.partition(".")[0])


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
