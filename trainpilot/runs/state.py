"""state.json: what a job is doing now, with a heartbeat. The job replaces it; worker and panel read it."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainpilot.errors import RunFailed
from trainpilot.runs.atomic import read_json, write_json
from trainpilot.runs.process import boot_id, monotonic

GAP = 0.5  # seconds between two writes, unless the phase changes
BEAT = 1.0  # seconds between two heartbeats without news


class StateFile:
    """The writer's end. Cheap enough to be called at every step: it writes at most twice a second.

    News within a phase is written by a thread: replacing a file takes a millisecond on a local disk and much more on a
    network volume, and no step should wait for it. A new phase is on the disk when `write` returns.
    """

    def __init__(self, path: Path, attempt: int = 0) -> None:
        self.path, self.attempt = path, attempt
        self._state: dict[str, Any] = {}
        self._written = float("-inf")
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def write(
        self,
        phase: str,
        step: int = 0,
        of: int = 0,
        epoch: int = 0,
        *,
        eta: float | None = None,
        force: bool = False,
        **more: Any,
    ) -> None:
        """phase: what is done now, one word; step of `of`: how far, in the phase's own unit (optimizer updates while
        training); eta: seconds left, None while unknown; more: anything worth showing (loss, it_s, vram_gb ...).

        Raises RunFailed where the file cannot be written; within a phase, at the call after the one that failed.
        """
        changed = phase != self._state.get("phase")
        self._state = {"phase": phase, "step": step, "of": of, "epoch": epoch, "eta": eta, **more}
        if changed or force:
            self.settle()
            self._put(self._document())
        elif monotonic() - self._written >= GAP:
            self._put_soon()

    def beat(self) -> None:
        """Only renew the heartbeat; called wherever a phase looks for a stop, and free unless a second has passed."""
        if self._state and monotonic() - self._written >= BEAT:
            self._put_soon()

    def settle(self) -> None:
        """Wait until the file holds what was last written. Raises RunFailed where it does not."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _put_soon(self) -> None:
        if self._pending is not None and not self._pending.done():
            return  # a slow volume: later news will do
        self.settle()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending = self._thread.submit(self._put, self._document())

    def _document(self) -> dict[str, Any]:
        self._written = monotonic()
        heartbeat = {"monotonic": round(self._written, 3), "boot": boot_id(), "pid": os.getpid()}
        return {"t": round(time.time(), 3), "attempt": self.attempt, **self._state, "heartbeat": heartbeat}

    def _put(self, document: dict[str, Any]) -> None:
        try:
            write_json(self.path, document, durable=False)
        except OSError as error:
            raise RunFailed(self.path, error.strerror or error, "a writable file", "Free disk space.") from error


def read_state(path: Path) -> dict[str, Any] | None:
    """The last state, or None before the first."""
    return read_json(path)


def heartbeat_age(state: dict[str, Any] | None) -> float | None:
    """Seconds since the heartbeat, on a clock that nobody can set; None without one, or for one of another boot."""
    beat = (state or {}).get("heartbeat")
    if not isinstance(beat, dict) or beat.get("boot") != boot_id():
        return None
    value = beat.get("monotonic")
    return max(0.0, monotonic() - value) if isinstance(value, (int, float)) else None
