"""Asks the picture process (`controlpilot.thumbnails`) for what pages and plans need, in the background.

One `Measuring` a workspace: pages put pictures in, a single thread feeds one process at a time and gives a picture
that takes too long, or too much, up. Used by the dataset views and by the plan, which waits for sizes.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import IO

from controlpilot.thumbnails import thumbnail_path
from trainpilot.datasets.hashes import Memo, Stamp
from trainpilot.datasets.images import Inspection
from trainpilot.workspace import Workspace

PICTURE_SECONDS = 20.0  # a 89 Mpx picture takes about three
PICTURES_A_PROCESS = 500  # what a decoder leaks ends with its process
MOST_WAITING = 200_000


class Measuring:
    """The pictures that wait to be looked at. Thread-safe; the thread and its process end when nothing waits."""

    def __init__(self, workspace: Workspace, picture_seconds: float = PICTURE_SECONDS) -> None:
        self.cache = workspace.cache
        self.picture_seconds = picture_seconds
        # Pictures that the process could not answer for; by path and time stamp, so a replaced file is tried again.
        self.given_up: dict[tuple[Path, int], str] = {}
        self._waiting: dict[Path, None] = {}
        self._urgent: dict[Path, None] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def want(self, paths: Iterable[Path], *, urgent: bool = False) -> None:
        """Have these pictures looked at. urgent: before the others (a person sees their places on the page)."""
        with self._changed:
            line = self._urgent if urgent else self._waiting
            for path in paths:
                if len(line) < MOST_WAITING and not self._is_given_up(path):
                    line[path] = None
            if (self._waiting or self._urgent) and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._work, name="measuring", daemon=True)
                self._thread.start()

    def unknown(self, paths: Iterable[Path]) -> list[Path]:
        """Those of `paths` that are not measured yet, given-up and vanished ones left out."""
        stamps = _stamps(paths)
        with Memo.of(self.cache) as memo:
            known = memo.known("inspection", stamps)
        return [s.path for s, text in zip(stamps, known, strict=True) if text is None and not self._is_given_up(s.path)]

    def facts(self, paths: Iterable[Path]) -> dict[Path, Inspection]:
        """What is known of pictures; one that was given up has its reason as `problem`."""
        every = list(paths)
        stamps = _stamps(every)
        with Memo.of(self.cache) as memo:
            known = memo.known("inspection", stamps)
        found = {s.path: Inspection.from_text(text) for s, text in zip(stamps, known, strict=True) if text}
        for path in every:
            reason = self.given_up_reason(path)
            if path not in found and reason:
                found[path] = Inspection(problem=reason)
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
        try:
            return self.given_up.get((path, path.stat().st_mtime_ns))
        except OSError:
            return None

    def _is_given_up(self, path: Path) -> bool:
        return self.given_up_reason(path) is not None

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
            self.given_up[(path, path.stat().st_mtime_ns)] = reason
        except OSError:
            return  # it has gone meanwhile: there is nothing to remember


def _stamps(paths: Iterable[Path]) -> list[Stamp]:
    found = []
    for path in paths:
        try:
            found.append(Stamp(path))
        except OSError:
            continue  # it vanished since the folder was read; the next look does not list it
    return found


@cache
def measuring(workspace: Workspace) -> Measuring:
    """The one of a workspace."""
    return Measuring(workspace)
