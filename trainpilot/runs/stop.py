"""Stopping: one flag that signals and requests set, and that every phase looks at.

SIGINT and requests/stop are a person's (exit code 4, never resumed by itself); SIGTERM and a closed terminal are a
pre-emption (5, resumed by itself). A second SIGINT leaves at once, with what is saved.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Protocol

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.process import monotonic

GRACE_VARIABLE = "PILOT_STOP_GRACE"
GRACE = 10.0  # seconds from which all other times of a stop are derived
GAP = 0.05  # seconds between two looks beyond the flag itself


class StopRequested(Exception):
    """A phase was asked to stop. kind: ExitCode.STOPPED (a person) or ExitCode.PREEMPTED; reason: in words."""

    def __init__(self, kind: ExitCode, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.exit_code, self.reason = kind, kind, reason


class Asked(Protocol):
    """What the flag needs of `requests.Requests`."""

    def take(self, kind: str) -> bool: ...


def stop_grace(environment: Mapping[str, str] | None = None) -> float:
    """PILOT_STOP_GRACE in seconds ("10", "7.5", "10s"), else ten. Raises PilotError for anything else."""
    given = (os.environ if environment is None else environment).get(GRACE_VARIABLE, "").strip()
    if not given:
        return GRACE
    try:
        seconds = float(given.removesuffix("s"))
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds <= 86400:
        raise PilotError(GRACE_VARIABLE, given, "seconds, more than 0 and at most 86400", "For example 10.")
    return seconds


class StopFlag:
    """Whether the run should stop, and why. The first reason counts.

    requests: looked at by `check` and `poll`; beat: called when looking (the heartbeat); last_words: called on a second
    SIGINT before the process ends, to leave true files behind. Usable from any thread; `install` from the main one.
    """

    def __init__(self, requests: Asked | None = None, beat: Callable[[], None] | None = None) -> None:
        self.requests, self.beat = requests, beat
        self.last_words: Callable[[StopRequested], None] | None = None
        self.asked: StopRequested | None = None
        self.asked_at: float | None = None  # monotonic
        self._looked = float("-inf")
        self._before: dict[int, Any] = {}

    def set(self, kind: ExitCode, reason: str) -> None:
        """Ask for a stop; a second call changes nothing."""
        if self.asked is None:
            self.asked_at = monotonic()
            self.asked = StopRequested(kind, reason)

    def poll(self, requests: Asked | None = None) -> bool:
        """Whether to stop. Beyond reading the flag it does something at most 20 times a second."""
        now = monotonic()
        if now - self._looked >= GAP:
            self._looked = now
            source = requests or self.requests
            if self.asked is None and source is not None and source.take("stop"):
                self.set(ExitCode.STOPPED, "stopped by a person (requests/stop)")
            if self.beat is not None and threading.current_thread() is threading.main_thread():
                self.beat()
        return self.asked is not None

    __call__ = poll

    def check(self) -> None:
        """Raise StopRequested where the run should stop."""
        if self.poll():
            assert self.asked is not None
            raise StopRequested(self.asked.kind, self.asked.reason)

    def install(self) -> StopFlag:
        """Take over SIGINT, SIGTERM and SIGHUP (one that is ignored, as under nohup, stays so). Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._before.setdefault(number, signal.signal(number, self._on_signal))
        return self

    def uninstall(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __enter__(self) -> StopFlag:
        return self.install()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.uninstall()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            self.set(ExitCode.PREEMPTED, f"pre-empted ({signal.Signals(number).name})")
            return
        if self.asked is None or self.asked.kind != ExitCode.STOPPED:
            # A person's wish also wins over a pre-emption that is under way: it must not be resumed by itself.
            self.asked = None
            self.set(ExitCode.STOPPED, "stopped by a person (SIGINT)")
            os.write(2, b"\nStopping: the last completed step is being saved. Again to leave at once.\n")
            return
        if self.last_words is not None:
            self.last_words(StopRequested(ExitCode.STOPPED, "stopped by a person at once (second SIGINT)"))
        with suppress(RuntimeError):  # the signal may have come in the middle of a write to it
            sys.stdout.flush()
        os._exit(ExitCode.STOPPED)
