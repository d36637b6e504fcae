"""log.txt: everything a run prints, through an append descriptor that no reader can block, bounded in size.

Under the worker the descriptor is the process's own output. In a shell the terminal stays the output and every line is
also written here. The run cuts its own log: the file is renamed and the descriptors are pointed at a new one, so that
no byte is lost whoever wrote it. Used by the verbs that run something.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from trainpilot.runs import segments

SEGMENT_BYTES = 8 << 20
KEEP = 3  # finished segments
_LOOK = 0.2  # seconds; what a runaway program writes in this time is how far the bound is missed


class RunLog:
    """The open log of a run, while its process lives. As a context it takes over and gives back sys.stdout and stderr.

    show: how a line gets on the terminal (above a bar); without it, lines are written there as they are.
    """

    def __init__(self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, keep: int = KEEP) -> None:
        self.path, self.segment_bytes, self.keep = path, segment_bytes, keep
        path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = self._open()
        self.inherited = _same(1, self.handle)
        self.text: TextIO = os.fdopen(
            os.dup(self.handle), "w", buffering=1, encoding="utf-8", errors="backslashreplace"
        )
        self.show: Callable[[str], None] | None = None
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="log", daemon=True)
        self._before: tuple[TextIO, TextIO] | None = None

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)

    def __enter__(self) -> RunLog:
        if not self.inherited:
            self._before = sys.stdout, sys.stderr
            sys.stdout, sys.stderr = _Both(sys.stdout, self), _Both(sys.stderr, self)
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watcher.join()
        sys.stdout.flush()
        if self._before is not None:
            sys.stdout, sys.stderr = self._before
        self.text.close()
        os.close(self.handle)

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            if os.fstat(self.handle).st_size >= self.segment_bytes:
                self.cut()

    def cut(self) -> None:
        """Begin a new segment: rename the file, and point every descriptor of this process at the new one."""
        places = [number for number in (1, 2, self.handle, self.text.fileno()) if _same(number, self.handle)]
        segments.rotate(self.path, keep=self.keep)
        fresh = self._open()
        for number in places:
            os.dup2(fresh, number, inheritable=number in (1, 2))
        os.close(fresh)


class _Both(io.TextIOBase):
    """A text stream that writes to the terminal and to the log."""

    def __init__(self, stream: TextIO, log: RunLog) -> None:
        self._stream, self._log = stream, log
        self._partial = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        self._log.text.write(text)
        if self._log.show is None:
            self._stream.write(text)
        else:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._log.show(line)
        return len(text)

    def flush(self) -> None:
        if self._log.show is None and self._partial:
            self._stream.write(self._partial)
            self._partial = ""
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _same(one: int, other: int) -> bool:
    try:
        first, second = os.fstat(one), os.fstat(other)
    except OSError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
