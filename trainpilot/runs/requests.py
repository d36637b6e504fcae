"""requests/{stop,save,sample}: anyone asks a live run for something by making a file; the run consumes it.

The file names the attempt it is meant for, so that a request that came too late does not stop the next attempt. An
empty one (`touch requests/stop`) is meant for the attempt that finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json, write_beside
from trainpilot.runs.process import monotonic

if TYPE_CHECKING:
    from trainpilot.runs.taskdir import TaskDir

KINDS = ("stop", "save", "sample")
GAP = 0.25  # seconds between two looks at the disk


class Requests:
    """The run's end. Looking costs nothing until a quarter of a second has passed since the last look."""

    def __init__(self, run: TaskDir) -> None:
        self._folder, self._attempt = run.path / "requests", run.attempt
        self._tell: Callable[[str], None] = lambda text: run.events.append("notice", text=text)
        self._looked = dict.fromkeys(KINDS, float("-inf"))

    def take(self, kind: str) -> bool:
        """Whether `kind` was asked for since the last look; the request is consumed. Stale ones are noted, ignored."""
        now = monotonic()
        if now - self._looked[kind] < GAP:
            return False
        self._looked[kind] = now
        path = self._folder / kind
        try:
            meant = path.read_bytes()[:64].decode(errors="replace").strip()
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        if meant in ("", str(self._attempt)):
            return True
        self._tell(f"a request to {kind} for attempt {meant!r} was ignored: this is attempt {self._attempt}")
        return False

    def clear(self) -> None:
        """Ignore what earlier attempts left behind; for the beginning of an attempt, before anybody can know it."""
        for kind in KINDS:
            (self._folder / kind).unlink(missing_ok=True)


def ask(run: Path, kind: str) -> None:
    """Ask the live attempt of the run in folder `run` for "stop", "save" or "sample"."""
    if kind not in KINDS:
        raise PilotError("request", kind, ", ".join(KINDS), "Choose one of these.")
    job = read_json(run / "job.json") or {}
    folder = run / "requests"
    folder.mkdir(parents=True, exist_ok=True)
    write_beside(folder / kind, f"{job.get('attempts', '')}\n".encode(), durable=False)
