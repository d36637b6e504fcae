"""Uploads of datasets: collected in a staging folder, continued after any cut, and put in place only when whole.

One upload is a folder `datasets/.incoming/<id>/` with `upload.json` (what is expected, written once and at each change
of state), `parts/<number>` (the bytes of each file so far; its size is the offset, so a crash loses nothing) and, at
the end, `ready/`. The tus endpoints (`api/uploads.py`) append to parts; `finish` checks and moves.

The folder lies beside the datasets, so putting it in place is a rename. Its name begins with a dot: nothing lists it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Trash
from trainpilot.datasets.layouts import discover, listed_names, printable
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json, sync_folder, write_json
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

MOST_FILES = 50_000
MOST_BYTES = 200 << 30
MOST_UPLOADS = 50
MOST_NAME = 200  # letters of one name of a path
DEEPEST = 6
RESERVE = 1 << 30  # bytes of the disk that no upload takes
BLOCK = 1 << 20
STALE_SECONDS = 7 * 24 * 3600  # an upload that nobody continued for a week goes to the trash
UNPACK_SECONDS = 3600
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".txt", ".caption", ".jsonl", ".zip"})
_ID = re.compile(r"[0-9a-f]{16}")
_DATASET = re.compile(r"[\w][\w .()+-]{0,99}")
State = Literal["receiving", "checking", "done", "failed"]


class Expected(BaseModel):
    """One file of an upload. path: relative, with /; size: bytes."""

    model_config = ConfigDict(extra="forbid")
    path: Annotated[str, Field(min_length=1, max_length=1000)]
    size: Annotated[int, Field(ge=0, le=MOST_BYTES)]


class Wanted(BaseModel):
    """What is going to be uploaded. add: put the files into the dataset of that name, which exists."""

    model_config = ConfigDict(extra="forbid")
    dataset: Annotated[str, Field(min_length=1, max_length=100)]
    add: bool = False
    files: Annotated[list[Expected], Field(min_length=1, max_length=MOST_FILES)]


class Part(BaseModel):
    """One file and how much of it is here."""

    number: int
    path: str
    size: int
    offset: int


class Upload(BaseModel):
    """One upload. parts: files that are not complete yet, at most a hundred; received, size: bytes of all."""

    id: str
    dataset: str
    add: bool
    state: State
    reason: str = ""
    files: int
    complete: int
    received: int
    size: int
    parts: list[Part] = []
    replaced: str = ""  # entry of the trash that holds what gave way


@dataclass(frozen=True)
class _Record:
    id: str
    dataset: str
    add: bool
    state: State
    reason: str
    files: list[tuple[str, int]]
    pid: int
    replaced: str


def safe_path(given: str) -> PurePosixPath:
    """A relative path of an uploaded file, refused in every way it could lead elsewhere. Raises PilotError."""
    path = unicodedata.normalize("NFC", given)
    names = path.split("/")
    bad = (
        "\\" in path
        or any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in path)
        or any(name in ("", ".", "..") or name.startswith(".") for name in names)
        or any(len(name.encode()) > MOST_NAME or name != name.strip() for name in names)
        or (len(names[0]) == 2 and names[0][1] == ":")
        or len(names) > DEEPEST
    )
    if bad:
        raise PilotError(
            "path", printable(given[:200]), f"a relative path of visible names, at most {DEEPEST} deep", "Rename it."
        )
    return PurePosixPath(path)


class Uploads:
    """The uploads of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.datasets / ".incoming"

    # ---- what there is

    def all(self) -> list[Upload]:
        """Unfinished uploads and those that ended lately."""
        found = []
        for path in sorted(self.folder.glob("*/upload.json")):
            try:
                found.append(self.read(path.parent.name, parts=False))
            except NotFound:
                continue  # it was removed between the listing and the reading
        return found

    def read(self, ident: str, *, parts: bool = True) -> Upload:
        """One upload. Raises NotFound."""
        record = self._record(ident)
        offsets = self._offsets(ident)
        listed = [
            Part(number=number, path=path, size=size, offset=offsets.get(number, 0))
            for number, (path, size) in enumerate(record.files)
        ]
        done = record.state == "done"
        incomplete = [] if done else [part for part in listed if part.offset < part.size or part.number not in offsets]
        state, reason = record.state, record.reason
        if state == "checking" and not _alive(record.pid):
            state, reason = "receiving", "checking was interrupted: finish it again"
        return Upload(
            id=ident,
            dataset=record.dataset,
            add=record.add,
            state=state,
            reason=reason,
            files=len(listed),
            complete=len(listed) - len(incomplete),
            received=sum(size for _, size in record.files) if done else sum(offsets.values()),
            size=sum(size for _, size in record.files),
            parts=incomplete[:100] if parts else [],
            replaced=record.replaced,
        )

    def parts(self, ident: str) -> list[Part]:
        """Every file of an upload. Raises NotFound."""
        record, offsets = self._record(ident), self._offsets(ident)
        done = record.state == "done"
        return [
            Part(number=number, path=path, size=size, offset=size if done else offsets.get(number, 0))
            for number, (path, size) in enumerate(record.files)
        ]

    def _record(self, ident: str) -> _Record:
        value = read_json(self.folder / ident / "upload.json") if _ID.fullmatch(ident) else None
        if value is None:
            raise NotFound("upload", ident[:40], "an upload that was begun here", "Begin it again.")
        return _Record(
            ident, str(value["dataset"]), bool(value["add"]), value["state"], str(value["reason"]),
            [(str(path), int(size)) for path, size in value["files"]], int(value["pid"]), str(value["replaced"]),
        )  # fmt: skip

    def _write(self, record: _Record, **changes: object) -> None:
        value = {
            "schema": 1, "dataset": record.dataset, "add": record.add, "state": record.state, "reason": record.reason,
            "files": record.files, "pid": record.pid, "replaced": record.replaced,
        } | changes  # fmt: skip
        write_json(self.folder / record.id / "upload.json", value)

    def _offsets(self, ident: str) -> dict[int, int]:
        parts = self.folder / ident / "parts"
        if not parts.is_dir():
            return {}
        with os.scandir(parts) as entries:
            return {int(entry.name): entry.stat().st_size for entry in entries if entry.name.isdigit()}

    # ---- receiving

    def begin(self, wanted: Wanted) -> Upload:
        """Expect these files. Raises PilotError for a bad name or path, Conflict where the dataset does not fit."""
        check_writable(self.workspace)
        self._sweep()
        name = wanted.dataset
        if not _DATASET.fullmatch(name) or name in ("images", "lora_training"):
            raise PilotError(
                "dataset", printable(wanted.dataset), "a folder name of letters, digits, spaces and . _ - ( ) +",
                "Choose another name, for example 10_mycat.",
            )  # fmt: skip
        paths = [str(safe_path(one.path)) for one in wanted.files]
        twice = [path for path, count in _counted(path.casefold() for path in paths).items() if count > 1]
        if twice:
            raise PilotError("files", f"given twice: {listed_names(twice)}", "every path once", "Rename one of them.")
        foreign = [path for path in paths if PurePosixPath(path).suffix.lower() not in ENDINGS]
        if foreign:
            raise PilotError(
                "files", listed_names(foreign), f"files ending in {', '.join(sorted(ENDINGS))}", "Leave them out."
            )
        size = sum(one.size for one in wanted.files)
        self._room(size)
        exists = (self.workspace.datasets / "images" / name).exists()
        if exists != wanted.add:
            raise Conflict(
                "dataset", f"{name} {'exists' if exists else 'does not exist'}",
                "a new name, or add with the name of one that exists",
                "Add to it, or choose another name." if exists else "Leave out add.",
            )  # fmt: skip
        if len(self.all()) >= MOST_UPLOADS:
            raise Conflict("uploads", f"{MOST_UPLOADS} begun", f"at most {MOST_UPLOADS}", "Finish or cancel some.")
        ident = secrets.token_hex(8)
        (self.folder / ident / "parts").mkdir(parents=True)
        files = [(path, one.size) for path, one in zip(paths, wanted.files, strict=True)]
        self._write(_Record(ident, name, wanted.add, "receiving", "", files, 0, ""))
        for number, (_, length) in enumerate(files):
            if length == 0:
                (self.folder / ident / "parts" / str(number)).touch()
        return self.read(ident)

    def _room(self, size: int) -> None:
        if size > MOST_BYTES:
            raise PilotError("size", size, f"at most {MOST_BYTES} bytes", "Upload it in several datasets.")
        place = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        free = shutil.disk_usage(place).free
        if size + RESERVE > free:
            raise PilotError(
                "disk", f"{free} bytes free", f"{size + RESERVE} bytes (with {RESERVE} kept free)",
                "Free space: empty the trash, delete old checkpoints.",
            )  # fmt: skip

    def offset(self, ident: str, number: int) -> tuple[int, int]:
        """(bytes here, bytes expected) of one file. Raises NotFound."""
        record = self._record(ident)
        if not 0 <= number < len(record.files):
            raise NotFound("upload", number, f"0 to {len(record.files) - 1}", "Begin the upload again.")
        part = self.folder / ident / "parts" / str(number)
        return (part.stat().st_size if part.is_file() else 0), record.files[number][1]

    def append(self, ident: str, number: int, offset: int, stream: BinaryIO, length: int | None) -> int:
        """Append a chunk that begins at `offset`; returns the new offset. What arrived before a cut stays.

        length: bytes announced, None where unknown. Raises Conflict where the offset is another, where another
        request writes this file, or where the upload no longer receives; PilotError where the chunk is too long.
        """
        record = self._record(ident)
        if record.state not in ("receiving", "failed") and not (record.state == "checking" and not _alive(record.pid)):
            raise Conflict("upload", record.state, "an upload that still receives", "Begin a new one.")
        here, expected = self.offset(ident, number)
        if length is not None and offset + length > expected:
            raise PilotError("upload", f"{offset + length} bytes", f"{expected} bytes", "Send what was announced.")
        self._room(length or 0)
        part = self.folder / ident / "parts" / str(number)
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(
                    "upload", "another request writes this file", "one at a time", "Wait, ask again."
                ) from None
            here = os.fstat(file.fileno()).st_size
            if here != offset:
                raise Conflict("Upload-Offset", offset, here, "Ask with HEAD where to go on.")
            while here < expected:
                block = stream.read(min(BLOCK, expected - here))
                if not block:
                    break
                file.write(block)
                here += len(block)
            file.flush()
            os.fsync(file.fileno())
        return here

    def cancel(self, ident: str) -> None:
        """Drop an upload: what had arrived goes to the trash. Raises NotFound, and Conflict while it is checked."""
        with self._held(ident):
            record = self._record(ident)
            if record.state == "checking" and _alive(record.pid):
                raise Conflict("upload", "being checked", "an upload that waits", "Wait until the check ends.")
            Trash(self.workspace).move([self.folder / ident], f"upload {record.dataset}, cancelled")

    # ---- finishing

    @contextmanager
    def _held(self, ident: str) -> Iterator[None]:
        self._record(ident)
        folder = os.open(self.folder / ident, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Conflict("upload", "being finished", "one at a time", "Ask for its state.") from None
        finally:
            os.close(folder)

    def finish(self, ident: str) -> Upload:
        """Check a whole upload and put it in place; returns it done, or failed with the reason.

        Raises Conflict where files are missing. Archives are unpacked by a process of their own, with caps.
        """
        with self._held(ident):
            record = self._record(ident)
            if record.state == "done":
                return self.read(ident)
            present = self.read(ident)
            if present.complete < present.files:
                missing = listed_names(part.path for part in present.parts)
                raise Conflict("upload", f"missing: {missing}", "every file, whole", "Go on uploading.")
            self._write(record, state="checking", reason="", pid=os.getpid())
            try:
                replaced = self._place(record)
            except PilotError as problem:
                self._write(record, state="failed", reason=f"{problem.given}. {problem.remedy}", pid=0)
                return self.read(ident)
            except OSError as problem:
                self._write(record, state="failed", reason=f"{problem.strerror or problem}", pid=0)
                raise
            self._write(record, state="done", reason="", pid=0, replaced=replaced)
            shutil.rmtree(self.folder / ident / "parts", ignore_errors=True)
        return self.read(ident)

    def finish_soon(self, ident: str, seconds: float) -> Upload:
        """`finish` in the background; its answer where it comes within `seconds`, else the state as it is."""
        raised: list[PilotError | OSError] = []

        def work() -> None:
            try:
                self.finish(ident)
            except (PilotError, OSError) as error:
                raised.append(error)

        self._record(ident)
        thread = threading.Thread(target=work, name=f"upload {ident}", daemon=True)
        thread.start()
        thread.join(seconds)
        if raised:
            raise raised[0]
        return self.read(ident)

    def _place(self, record: _Record) -> str:
        ready = self.folder / record.id / "ready"
        if ready.exists():
            shutil.rmtree(ready)  # half of an interrupted check; the parts are all still there
        ready.mkdir()
        for number, (path, size) in enumerate(record.files):
            part = self.folder / record.id / "parts" / str(number)
            if part.stat().st_size != size:
                raise PilotError(
                    "upload", f"{path} has {part.stat().st_size} of {size} bytes", "all", "Upload it again."
                )
            if path.lower().endswith(".zip"):
                self._unpack(part, ready)
            else:
                target = ready / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise PilotError("upload", f"{path} is in an archive too", "every path once", "Rename one of them.")
                _link(part, target)
        ready = _without_wrapper(ready)
        place = self.workspace.datasets / "images" / record.dataset
        if not record.add:
            discover(ready)
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                raise PilotError("dataset", f"{place.name} came into being meanwhile", "a new name", "Upload it anew.")
            ready.rename(place)
            sync_folder(place.parent)
            return ""
        return self._add(ready, place)

    def _add(self, ready: Path, place: Path) -> str:
        """Move files into a dataset that exists; those that they replace go to the trash, as one entry."""
        files = sorted(path for path in ready.rglob("*") if path.is_file())
        targets = [place / path.relative_to(ready) for path in files]
        blocked = [target.name for target in targets if target.is_dir() or _leads_away(target, place)]
        if blocked:
            raise PilotError("upload", f"{listed_names(blocked)} is in the way", "free places", "Rename the files.")
        replaced = [target for target in targets if os.path.lexists(target)]
        entry = Trash(self.workspace).move(replaced, f"replaced by an upload to {place.name}").id if replaced else ""
        for path, target in zip(files, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        return entry

    def _unpack(self, archive: Path, into: Path) -> None:
        command = [sys.executable, "-m", "controlpilot.unpacking", str(archive), str(into)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=UNPACK_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise PilotError("archive", "unpacking took over an hour", "a smaller archive", "Split it.") from None
        if done.returncode:
            reason = done.stdout.strip() or f"unpacking ended with {done.returncode}"
            raise PilotError("archive", reason, "a zip of pictures and captions", "Pack it anew.")

    def _sweep(self) -> None:
        """Clear records of finished uploads after a day, and move forgotten ones to the trash after a week."""
        for path in self.folder.glob("*/upload.json"):
            age = time.time() - max(path.stat().st_mtime, (path.parent / "parts").stat().st_mtime
                                    if (path.parent / "parts").is_dir() else 0)  # fmt: skip
            state = (read_json(path) or {}).get("state")
            if state == "done" and age > STALE_SECONDS / 7:
                shutil.rmtree(path.parent)
            elif state != "done" and age > STALE_SECONDS:
                Trash(self.workspace).move([path.parent], "an upload that nobody continued for a week")


def _link(part: Path, target: Path) -> None:
    """A second name for a part, so that a failed check loses nothing; a copy where the volume has no links."""
    try:
        os.link(part, target)
    except OSError:
        shutil.copyfile(part, target)


def _without_wrapper(ready: Path) -> Path:
    """A folder that was dropped as a whole, or zipped as a whole, is one level too deep: take its inside."""
    while True:
        entries = list(ready.iterdir())
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name in ("images", "img"):
            return ready
        ready = entries[0]


def _leads_away(target: Path, place: Path) -> bool:
    """Whether a file, or a link out of the dataset, stands where one of the target's folders would be."""
    parents = [parent for parent in target.parents if parent.is_relative_to(place) and parent.exists()]
    inside = target.parent.resolve().is_relative_to(place.resolve())
    return not inside or any(not parent.is_dir() for parent in parents)


def _counted(items: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in items:
        found[item] = found.get(item, 0) + 1
    return found


def _alive(pid: int) -> bool:
    return pid == os.getpid()  # only this panel checks; another process's number is a panel that has gone
