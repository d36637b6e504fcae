"""Asks the picture process (`controlpilot.thumbnails`) for what pages and plans need, in the background.

One `Measuring` a workspace: pages put pictures in, a single thread feeds one process at a time and gives a picture
that takes too long, or too much, up. Used by the dataset views and by the plan, which waits for sizes.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from trainpilot.datasets.hashes import Memo, Stamp
from trainpilot.datasets.images import Inspection
from trainpilot.workspace import Workspace

PICTURE_SECONDS = 20.0  # a 89 Mpx picture takes about three
PICTURES_A_PROCESS = 500  # what a decoder leaks ends with its process
MOST_WAITING = 200_000
FACTS_KEPT = 40_000  # pictures whose facts stay in memory: about 25 MB


class Measuring:
    """The pictures that wait to be looked at. Thread-safe; the thread and its process end when nothing waits."""

    def __init__(self, workspace: Workspace, picture_seconds: float = PICTURE_SECONDS) -> None:
        self.cache = workspace.cache
        self.picture_seconds = picture_seconds
        # Pictures that the process could not answer for, with their time stamp: a replaced file is tried again.
        self.given_up: dict[Path, tuple[int, str]] = {}
        # What the memo said, with the stamp it was said of: a page of a large dataset asks for all of it again.
        self._facts: dict[Path, tuple[tuple[int, int, int], Inspection]] = {}
        self._waiting: dict[Path, None] = {}
        self._urgent: dict[Path, None] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def want(self, paths: Iterable[Path], *, urgent: bool = False) -> None:
        """Have these pictures looked at. urgent: before the others (a person sees their places on the page)."""
        with self._changed:
            line = self._urgent if urgent else self._waiting
            for path in paths:
                if len(line) < MOST_WAITING and self.given_up_reason(path) is None:
                    line[path] = None
            if (self._waiting or self._urgent) and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._work, name="measuring", daemon=True)
                self._thread.start()

    def unknown(self, paths: Iterable[Path]) -> list[Path]:
        """Those of `paths` that are not measured yet, given-up and vanished ones left out."""
        every = list(paths)
        found = self.facts(every)
        return [path for path in every if path not in found and path.is_file()]

    def facts(self, paths: Iterable[Path]) -> dict[Path, Inspection]:
        """What is known of pictures; one that was given up has its reason as `problem`."""
        found: dict[Path, Inspection] = {}
        asked: list[Path] = []
        for path in paths:
            kept = self._facts.get(path)
            if kept is not None and kept[0] == _row(path):
                found[path] = kept[1]
            else:
                asked.append(path)
        if not asked:
            return found
        stamps = _stamps(asked)
        with Memo.of(self.cache) as memo:
            known = memo.known("inspection", stamps)
        learnt = {}
        for stamp, text in zip(stamps, known, strict=True):
            if text:
                found[stamp.path] = Inspection.from_text(text)
                learnt[stamp.path] = (stamp.row[1:], found[stamp.path])
            elif reason := self.given_up_reason(stamp.path):
                found[stamp.path] = Inspection(problem=reason)
        with self._changed:
            self._facts |= learnt
            while len(self._facts) > FACTS_KEPT:
                del self._facts[next(iter(self._facts))]
        return found

    def thumbnail(self, sha256: str) -> Path | None:
        """The thumbnail of a content, where it is made."""
        path = thumbnail_path(self.cache, sha256)
        return path if sha256 and path.is_file() else None

    def wait(self, seconds: float) -> bool:
        """Wait until nothing waits; False where time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._urgent and not self._waiting, seconds)

    def given_up_reason(self, path: Path) -> str | None:
        """Why a picture was given up, or None; one replaced since then is tried again."""
        given_up = self.given_up.get(path)
        if given_up is None:
            return None
        try:
            return given_up[1] if given_up[0] == path.stat().st_mtime_ns else None
        except OSError:
            return None

    def _next(self) -> Path | None:
        with self._changed:
            line = self._urgent or self._waiting
            return next(iter(line), None)

    def _done(self, path: Path) -> None:
        with self._changed:
            self._urgent.pop(path, None)
            self._waiting.pop(path, None)
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._urgent and not self._waiting:
                    self._thread = None
                    return
            self._one_process()

    def _one_process(self) -> None:
        """Feed one process until it has done its share, nothing waits, or a picture was too much for it."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "controlpilot.thumbnails", str(self.cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            for _ in range(PICTURES_A_PROCESS):
                path = self._next()
                if path is None:
                    break
                problem = self._ask(process.stdin, process.stdout, path)
                if problem is not None:
                    self._give_up(path, problem)
                self._done(path)
                if problem is not None and problem.startswith("the picture process"):
                    break
            process.kill()

    def _ask(self, questions: IO[bytes], answers: IO[bytes], path: Path) -> str | None:
        """None where the picture was measured (whole or not), else why it could not be."""
        try:
            questions.write(json.dumps({"path": str(path)}).encode() + b"\n")
            questions.flush()
        except OSError:
            return "the picture process ended over it"
        with selectors.DefaultSelector() as ready:
            ready.register(answers, selectors.EVENT_READ)
            if not ready.select(self.picture_seconds):
                return f"the picture process needed more than {self.picture_seconds:g} s for it"
        line = answers.readline()
        if not line:
            return "the picture process ended over it"
        answer = json.loads(line)
        return str(answer["problem"]) if answer["sha256"] is None else None

    def _give_up(self, path: Path, reason: str) -> None:
        try:
            self.given_up[path] = (path.stat().st_mtime_ns, reason)
        except OSError:
            return  # it has gone meanwhile: there is nothing to remember


def thumbnail_path(cache: Path, sha256: str) -> Path:
    """Where the thumbnail of a picture with this content lies."""
    return cache / "thumbs" / sha256[:2] / f"{sha256}.webp"


def _row(path: Path) -> tuple[int, int, int] | None:
    """Size and times as a `Stamp` has them; None where the file is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _stamps(paths: Iterable[Path]) -> list[Stamp]:
    found = []
    for path in paths:
        try:
            found.append(Stamp(path))
        except OSError:
            continue  # it vanished since the folder was read; the next look does not list it
    return found


@functools.cache
def measuring(workspace: Workspace) -> Measuring:
    """The one of a workspace."""
    return Measuring(workspace)
