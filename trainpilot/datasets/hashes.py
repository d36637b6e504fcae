"""What is known of a file by its content, remembered so that a file is read once and not at every start.

One SQLite file in the cache folder, shared by all processes: SQLite's own locking and transactions keep it whole, and
it may be deleted at any time. Used by the scan (`table.py`), by the caches of the engine and by the run's records.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

BLOCK = 1 << 20
# A file written twice within the clock tick of its file system keeps its time stamp (2 s on FAT, 1 s on some network
# volumes), so an entry is believed only if the file was already older than this when it was read.
SETTLED_NS = 2_000_000_000
LAYOUT = 1  # raise it when the meaning of a remembered fact changes; older facts are then read anew


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises OSError."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def file_hash(path: Path, memo: Memo | None = None) -> str:
    """SHA-256 of a file's bytes, hexadecimal; from `memo` when path, size and times are unchanged. Raises OSError."""
    if memo is None:
        return digest(path)
    return memo.recall("sha256", path, digest)


class Memo:
    """Facts about files, each valid as long as the file's size and times (modified, changed) are.

    Several threads and several processes may use the same file at once. Where it cannot be written (full disk,
    read-only folder) or is damaged, the memo lives in memory for this process and `notes` says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._guard = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._open(str(path))
        except (sqlite3.DatabaseError, OSError) as problem:
            self.notes.append(
                f"the memo of file hashes {path} cannot be used ({problem}); files are read anew. "
                "It may be deleted: it holds nothing that cannot be recomputed"
            )
            self._connection = self._open(":memory:")

    @classmethod
    def of(cls, cache: Path) -> Memo:
        """The memo of a cache folder (`workspace.cache`)."""
        return cls(cache / "hashes.sqlite")

    @staticmethod
    def _open(place: str) -> sqlite3.Connection:
        connection = sqlite3.connect(place, timeout=30, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS facts (kind TEXT, path BLOB, size INTEGER, modified INTEGER, changed INTEGER, "
            "value TEXT, PRIMARY KEY (kind, path)) WITHOUT ROWID"
        )
        return connection

    def recall(self, kind: str, path: Path, learn: Callable[[Path], str]) -> str:
        """The fact `kind` of a file: remembered, or learned by reading it. Raises what `learn` or `stat` raises."""
        stamp = Stamp(path)
        known = self.known(kind, [stamp])[0]
        if known is not None:
            return known
        value = learn(path)
        self.remember(kind, [(stamp, value)])
        return value

    def known(self, kind: str, stamps: Iterable[Stamp]) -> list[str | None]:
        """The remembered fact of each file, None where there is none or the file has changed since."""
        query = "SELECT value FROM facts WHERE kind = ? AND path = ? AND size = ? AND modified = ? AND changed = ?"
        with self._guard:
            found = [self._connection.execute(query, (_kind(kind), *stamp.row)).fetchone() for stamp in stamps]
        return [row[0] if row else None for row in found]

    def remember(self, kind: str, facts: Iterable[tuple[Stamp, str]]) -> None:
        """Keep facts about files as they were when their stamps were taken, in one transaction.

        Files touched less than two seconds before are left out: they could change again without a new time stamp.
        """
        rows = [(_kind(kind), *stamp.row, value) for stamp, value in facts if stamp.settled]
        if not rows:
            return
        try:
            with self._guard, self._transaction():
                self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as problem:
            self.notes.append(f"{len(rows)} file hashes could not be remembered in {self.path}: {problem}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Memo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Stamp:
    """A file's identity before it is read: path, size, time of modification and of change. Raises OSError."""

    __slots__ = ("path", "row", "settled")

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self.path = path
        # File names are bytes: one that is not valid UTF-8 must not stop the scan.
        absolute = os.fsencode(path.absolute())
        self.row = (absolute, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self.settled = max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED_NS < time.time_ns()


def _kind(name: str) -> str:
    return f"{name}/{LAYOUT}"
