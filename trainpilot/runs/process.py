"""Which process it was: pid, start time and boot, so that a reused pid is never taken for the one that left.

Used by job.json, by the locks' messages and by the worker when it attaches to a trainer that outlived it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_STATE, _START_TICKS = 0, 19  # in /proc/PID/stat, counted after the name's closing bracket


@cache
def boot_id() -> str:
    """Names this boot of this machine; monotonic times are comparable only within one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"boot-{int(psutil.boot_time())}"


def monotonic() -> float:
    """Seconds on the clock that nobody can set; shared by all processes of a boot."""
    return time.monotonic()


def _start(pid: int) -> float | None:
    """Start time of a live process in clock ticks since boot, or None. Unlike psutil's, it ignores the wall clock."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            return psutil.Process(pid).create_time()
        except psutil.Error:
            return None
    return None if fields[_STATE] in "ZX" else float(fields[_START_TICKS])


@dataclass(frozen=True)
class Identity:
    """One process of one boot of one machine."""

    pid: int
    started: float
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None where there is none, or only a zombie of one."""
        started = _start(pid)
        return None if started is None else cls(pid, started, boot_id(), socket.gethostname())

    @classmethod
    def own(cls) -> Identity:
        found = cls.of(os.getpid())
        assert found is not None, "a running process has an entry in the process table"
        return found

    @classmethod
    def parse(cls, value: Any) -> Identity | None:
        """From `as_dict`; None where a field is missing or of another type."""
        try:
            return cls(int(value["pid"]), float(value["started"]), str(value["boot"]), str(value["host"]))
        except (KeyError, TypeError, ValueError):
            return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def alive(self) -> bool:
        """Whether this very process still runs here. One of another boot or machine counts as gone."""
        return self.boot == boot_id() and _start(self.pid) == self.started

    def signal(self, number: int) -> bool:
        """Send a signal to this very process, never to another that got its pid; False where it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except (AttributeError, OSError):  # a system without pidfd: the moment between look and signal stays
            if self.alive():
                os.kill(self.pid, number)
                return True
            return False
        try:
            # The descriptor belongs to one process for good, so that checking it first leaves no gap.
            if not self.alive():
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
