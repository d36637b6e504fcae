"""One file from the web into its place: resumed, checked, and never half there. Used by the download job.

Bytes go to `.NAME.part` beside the place, with a note of what they belong to; the whole is hashed, synced, and only
then renamed. Nothing that exists is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import urllib3

from trainpilot.errors import PilotError, RunFailed
from trainpilot.models.refusals import refusal
from trainpilot.models.web import Answer, Web, shown
from trainpilot.runs.atomic import read_json, sync_folder, write_json

CHUNK = 1 << 20
RESERVE = 256 << 20  # bytes of the disk that a download leaves free
LOOK_AT_DISK = 64 << 20  # bytes between two looks at the free space
TRIES = 6  # in a row without a new byte
WAITS = (1.0, 2.0, 5.0, 15.0, 30.0)  # seconds before each further try
LONGEST_WAIT = 300.0  # seconds that a server may ask us to wait
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wanted:
    """A file and where it goes. size, sha256, git_sha1 (of a blob, as git names it): what is known before; or None."""

    url: str
    place: Path
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What came: bytes of the file, its sha256, bytes that were there from an earlier try, and whether a known hash
    was compared."""

    size: int
    sha256: str
    resumed_from: int
    compared: bool


@dataclass
class Watch:
    """How a download tells what it does. check: raises to stop; bytes(done, of): how far this file is, of is None while
    unknown; say: a line for people; sleep: waits, and raises to stop."""

    check: Callable[[], None]
    bytes: Callable[[int, int | None], None]
    say: Callable[[str], None]
    sleep: Callable[[float], None]


def free_bytes(folder: Path) -> int:
    """What the disk of a folder, or of its first existing parent, has left for us."""
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def need_space(folder: Path, wanted: int) -> None:
    """PilotError where `wanted` bytes would not leave RESERVE free."""
    free = free_bytes(folder)
    if free < wanted + RESERVE:
        raise _full(folder, wanted, free)


def _full(folder: Path, wanted: int, free: int) -> PilotError:
    return PilotError(
        "disk",
        f"{free / 1e9:.1f} GB free at {folder}, {wanted / 1e9:.1f} GB to come",
        f"{(wanted + RESERVE) / 1e9:.1f} GB free",
        "Free space (empty the trash, delete old checkpoints or the cache) and resume: what has arrived is kept.",
    )


def fetch(web: Web, wanted: Wanted, watch: Watch) -> Fetched:
    """Bring one file into its place. PilotError where a person must act, RunFailed where a retry may help; what has
    arrived stays for the next try."""
    place = wanted.place
    if os.path.lexists(place):
        raise PilotError(place, "is there already", "a name that is free", "Rename or trash it, then resume.")
    place.parent.mkdir(parents=True, exist_ok=True)
    part, note = place.with_name(f".{place.name}.part"), place.with_name(f".{place.name}.part.json")
    try:
        with _opened(part) as file:
            return _Transfer(web, wanted, watch, file, part, note).run()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(place.parent, CHUNK, free_bytes(place.parent)) from error
        raise RunFailed(place, error.strerror or error, "a folder that can be written", "Check the disk.") from error


def _opened(part: Path) -> BinaryIO:
    """The part, locked: two downloads of one file would write into each other."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise PilotError(part.name, "another download writes it", "one at a time", "Wait for the other one.") from error
    except OSError:
        pass  # a volume without locks: the queue runs one download of a place at a time anyway
    return os.fdopen(handle, "r+b")


class _Transfer:
    def __init__(self, web: Web, wanted: Wanted, watch: Watch, file: BinaryIO, part: Path, note: Path) -> None:
        self.web, self.wanted, self.watch, self.file, self.part, self.note = web, wanted, watch, file, part, note
        self.etag = ""
        self.size = wanted.size
        self.sha256 = wanted.sha256
        self.hash = hashlib.sha256()
        self.have = 0
        self.looked = 0

    def run(self) -> Fetched:
        self._take_up()
        begun_with, tries = self.have, 0
        while self.size is None or self.have < self.size:
            before = self.have
            try:
                if self._once():
                    break
                problem = "the connection ended early"
                asked = None
            except _Later as later:
                problem, asked = str(later), later.seconds
            except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
                problem, asked = f"the connection was cut ({type(error).__name__})", None
            wait = WAITS[min(tries, len(WAITS) - 1)] if asked is None else asked
            tries = 0 if self.have > before else tries + 1
            if tries >= TRIES:
                remedy = "It goes on from there when it is tried again."
                raise RunFailed(shown(self.wanted.url), f"{problem}, {tries} times without a new byte", "bytes", remedy)
            self.watch.say(f"{problem} at {self.have:,} bytes; goes on in {wait:.0f} s")
            self.watch.sleep(wait)
        return self._settle(begun_with)

    def _take_up(self) -> None:
        """Continue with the bytes of an earlier try, where they belong to this file."""
        about = read_json(self.note) or {}
        size = os.fstat(self.file.fileno()).st_size
        self.etag = str(about.get("etag") or "")
        known = [(self.sha256, about.get("sha256")), (self.size, about.get("size"))]
        same = about.get("url") == self.wanted.url or (self.sha256 and about.get("sha256") == self.sha256)
        if size and (not same or any(ours and theirs and ours != theirs for ours, theirs in known)):
            self.watch.say(f"{size:,} bytes of another version of {self.wanted.place.name} are left behind")
            self._restart()
            return
        self.size = self.size or about.get("size")
        self.sha256 = self.sha256 or about.get("sha256")
        self.file.seek(0)
        while data := self.file.read(CHUNK):
            self.watch.check()
            self.hash.update(data)
            self.have += len(data)
            self.watch.bytes(self.have, self.size)
        if self.have:
            self.watch.say(f"goes on at {self.have:,} bytes of {self.wanted.place.name}")

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.hash, self.have, self.looked, self.etag = hashlib.sha256(), 0, 0, ""
        self.size, self.sha256 = self.wanted.size, self.wanted.sha256  # what an earlier answer told may not hold

    def _once(self) -> bool:
        """One request; True where the file is whole now."""
        headers = {}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if self.etag and not self.etag.startswith("W/"):
                headers["If-Range"] = self.etag
        answer = self.web.get(self.wanted.url, headers)
        try:
            if answer.status == 416:
                return self._beyond(answer)
            self._accept(answer)
            need_space(self.part.parent, max(0, (self.size or 0) - self.have))
            while data := answer.read(CHUNK):
                self.watch.check()
                self.file.write(data)
                self.hash.update(data)
                self.have += len(data)
                self.watch.bytes(self.have, self.size)
                if self.have - self.looked >= LOOK_AT_DISK:
                    self.looked = self.have
                    self.file.flush()
                    need_space(self.part.parent, max(0, (self.size or 0) - self.have))
        finally:
            # What has arrived counts, whatever ended it: the next try begins behind it.
            self.file.flush()
            answer.close()
        return self.size is None or self.have >= self.size

    def _accept(self, answer: Answer) -> None:
        """Learn from the answer's head what comes; refuse what is no file."""
        if answer.status in (429, 503):
            raise _Later(f"the server asks to wait ({answer.status})", _asked_wait(answer))
        if answer.status in (408, 500, 502, 504):
            raise _Later(f"the server has trouble ({answer.status})")
        if answer.status not in (200, 206):
            raise refusal(answer)
        total = self._total(answer)
        declared = self.wanted.size
        if declared is not None and total not in (None, declared):
            self._restart()
            given = f"{total:,} bytes on the server now"
            raise PilotError(shown(self.wanted.url), given, f"{declared:,} bytes", "The file changed; begin again.")
        if answer.status == 206 and total is not None and self.size not in (None, total):
            self._restart()
            raise _Later("the file changed on the server: it begins again", 0.0)
        self.size = self.size or total
        linked = {name.lower(): value for name, value in answer.linked.items()}
        hash_told = str(linked.get("x-linked-etag") or "").strip('"')
        if self.sha256 is None and _SHA256.fullmatch(hash_told):
            self.sha256 = hash_told
        self.etag = answer.headers.get("ETag") or ""
        about = {"url": self.wanted.url, "etag": self.etag, "size": self.size, "sha256": self.sha256}
        write_json(self.note, {key: value for key, value in about.items() if value}, durable=False)

    def _total(self, answer: Answer) -> int | None:
        if answer.status == 206:
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self.have:
                self._restart()
                raise _Later("the server sent another range than was asked for", 0.0)
            return None if match[3] == "*" else int(match[3])
        if self.have:
            self.watch.say("the server sends the file from its beginning: it changed, or ranges are not known there")
            self._restart()
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            return None  # compressed on its way: its length says nothing
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdigit() else None

    def _beyond(self, answer: Answer) -> bool:
        """416: nothing behind what we have. Either that is the whole file, or the part belongs to another one."""
        told = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if told.isdigit() and int(told) == self.have:
            self.size = self.have
            return True
        self.watch.say(f"the server has no byte {self.have:,}: the part belongs to another file, and begins again")
        if not self.have:
            raise PilotError(shown(self.wanted.url), "416 for the whole file", "a file", "Use another source.")
        self._restart()
        raise _Later("begins again", 0.0)

    def _settle(self, begun_with: int) -> Fetched:
        """Compare, sync, rename."""
        found = self.hash.hexdigest()
        if self.size is not None and self.have != self.size:
            self._throw_away(f"{self.have:,} bytes", f"{self.size:,} bytes")
        if self.sha256 and found != self.sha256.lower():
            self._throw_away(f"sha256 {found}", f"sha256 {self.sha256}")
        elif not self.sha256 and self.wanted.git_sha1 and (blob := self._blob_hash()) != self.wanted.git_sha1:
            self._throw_away(f"git hash {blob}", f"git hash {self.wanted.git_sha1}")
        os.fsync(self.file.fileno())
        try:
            # A link fails where something has taken the name meanwhile; a rename would replace it.
            os.link(self.part, self.wanted.place)
            self.part.unlink()
        except FileExistsError as error:
            raise PilotError(
                self.wanted.place, "appeared meanwhile", "a free name", "Rename it, then resume."
            ) from error
        except OSError:
            self.part.rename(self.wanted.place)  # a volume without hard links
        sync_folder(self.wanted.place.parent)
        self.note.unlink(missing_ok=True)
        return Fetched(self.have, found, begun_with, bool(self.sha256 or self.wanted.git_sha1))

    def _blob_hash(self) -> str:
        digest = hashlib.sha1(f"blob {self.have}\0".encode(), usedforsecurity=False)
        self.file.seek(0)
        while data := self.file.read(CHUNK):
            digest.update(data)
        return digest.hexdigest()

    def _throw_away(self, given: str, allowed: str) -> None:
        """What arrived is not the file: it goes, so that the next try begins anew."""
        self._restart()
        self.note.unlink(missing_ok=True)
        raise RunFailed(shown(self.wanted.url), given, allowed, "The file arrived damaged; it is fetched again.")


class _Later(Exception):
    """Worth another try: after the seconds that were asked for, or after ours."""

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text)
        self.seconds = seconds


def _asked_wait(answer: Answer) -> float:
    given = answer.headers.get("Retry-After", "")
    return min(float(given), LONGEST_WAIT) if given.isdigit() else WAITS[-1]
