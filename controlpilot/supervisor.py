"""supervisord, asked over its unix socket: states, start, stop, restart, and logs by exact offset.

Used by views/services.py and the command line. The socket is 0700 and belongs to the panel's user.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from controlpilot.views.refusals import Conflict, NotFound
from trainpilot.errors import PilotError

PART = 64 * 1024  # bytes of a log read at once
REASON = 2000  # bytes of a log that explain why a program ended


class NotAnswering(PilotError):
    """supervisord is not there, or does not answer."""

    http_status = 503


@dataclass(frozen=True)
class ServiceState:
    """One program. state: supervisord's word (RUNNING, FATAL ...); since: unix seconds of the last change, None where
    it never ran; exit_reason: what supervisord knows of why it ended, "" while it runs."""

    name: str
    state: str
    description: str
    pid: int | None
    since: float | None
    exit_reason: str


@dataclass(frozen=True)
class LogPart:
    """text: from byte `start` to byte `end`, whole lines where there are some; ask again with `end`. A log that was
    rotated starts again at 0: `restarted`."""

    text: str
    start: int
    end: int
    size: int
    restarted: bool


class Supervisor:
    """path: supervisord's socket. Every call is one short connection; errors are PilotErrors."""

    def __init__(self, path: Path, timeout: float = 5) -> None:
        self._path = path
        self._timeout = timeout

    def states(self) -> dict[str, ServiceState]:
        """Every program by its name, without the group."""
        with self._calls() as calls:
            return {row["name"]: _state(row) for row in calls.getAllProcessInfo()}

    def start(self, name: str) -> None:
        """Ask for a start; STARTING is answered by states(). A running one is left as it is."""
        self._do(name, "startProcess", False)

    def stop(self, name: str) -> None:
        """Ask for a stop, without waiting for its end. One that does not run is left as it is."""
        self._do(name, "stopProcess", False)

    def restart(self, name: str) -> None:
        """Stop, wait for the end, and start again. Raises PilotError where it does not end in its time."""
        with self._calls(timeout=30) as calls:
            full = self._full_name(calls, name)
            if _state(calls.getProcessInfo(full)).state in ("RUNNING", "STARTING", "BACKOFF", "STOPPING"):
                with _faults(name, Faults.NOT_RUNNING):
                    calls.stopProcess(full, True)
            with _faults(name, Faults.ALREADY_STARTED):
                calls.startProcess(full, False)

    def signal(self, name: str, word: str) -> None:
        """Send a signal such as "HUP" to a running program."""
        with self._calls() as calls, _faults(name):
            calls.signalProcess(self._full_name(calls, name), word)

    def log(self, name: str, offset: int | None = None, limit: int = PART) -> LogPart:
        """Output from a byte on; None: the last part."""
        with self._calls() as calls:
            info = calls.getProcessInfo(self._full_name(calls, name))
        return read_log(Path(info["stdout_logfile"] or info["logfile"]), offset, limit)

    def last_lines(self, name: str, count: int = 20) -> str:
        """The end of its output: what a failed program said last."""
        return "\n".join(self.log(name, limit=REASON).text.splitlines()[-count:])

    def _do(self, name: str, method: str, wait: bool) -> None:
        with self._calls() as calls, _faults(name, Faults.ALREADY_STARTED, Faults.NOT_RUNNING):
            getattr(calls, method)(self._full_name(calls, name), wait)

    def _full_name(self, calls: Any, name: str) -> str:
        """group:name, whatever the group is called. Raises NotFound."""
        rows = calls.getAllProcessInfo()
        for row in rows:
            if row["name"] == name:
                return f"{row['group']}:{name}"
        raise NotFound("service", name, ", ".join(sorted(row["name"] for row in rows)), "Choose one of these.")

    @contextlib.contextmanager
    def _calls(self, timeout: float | None = None) -> Iterator[Any]:
        transport = _Transport(self._path, timeout or self._timeout)
        try:
            yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport, allow_none=True).supervisor
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            remedy = "The other parts of the panel go on working; supervisord's own log says why it ended."
            raise NotAnswering("supervisord", f"{self._path}: {error}", "an answer", remedy) from error
        finally:
            transport.close()


class _Transport(SupervisorTransport):
    """supervisor's transport over a unix socket, with a time limit and for one thread."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__(None, None, f"unix://{path}")

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(timeout)
                self.sock.connect(str(path))

        self._get_connection = lambda: Connection("localhost")


@contextlib.contextmanager
def _faults(name: str, *fine: int) -> Iterator[None]:
    """supervisord's refusals as ours; those in `fine` mean that it is so already."""
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode in fine:
            return
        words = fault.faultString.partition(":")[0].replace("_", " ").lower()
        remedy = "Its log says more; a program that is not there has to be installed first."
        raise Conflict(f"service {name}", words, "a program that can be started", remedy) from fault


def _state(row: dict[str, Any]) -> ServiceState:
    state = str(row["statename"])
    running = state in ("RUNNING", "STARTING", "STOPPING")
    reason = ""
    if not running and row["stop"]:
        reason = str(row["spawnerr"]) or (f"exit status {row['exitstatus']}" if state != "STOPPED" else "stopped")
    elif not running:
        reason = str(row["spawnerr"])
    since = row["start"] if running else row["stop"] or None
    return ServiceState(row["name"], state, str(row["description"]), row["pid"] or None, since or None, reason)


def read_log(path: Path, offset: int | None, limit: int = PART) -> LogPart:
    """A part of a log file, without ever reading more than `limit` bytes of it."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            restarted = offset is not None and offset > size
            start = max(0, size - limit) if offset is None else 0 if restarted else offset
            file.seek(start)
            data = file.read(limit)
    except FileNotFoundError:
        return LogPart("", 0, 0, 0, bool(offset))
    if offset is None and start > 0 and b"\n" in data:
        cut = data.index(b"\n") + 1  # the first line is not whole
        start, data = start + cut, data[cut:]
    if start + len(data) < size and b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]
    else:
        data = data[: len(data) - _torn(data)]
    return LogPart(data.decode("utf-8", "replace"), start, start + len(data), size, restarted)


def _torn(data: bytes) -> int:
    """How many bytes at the end begin a character whose rest is not written yet."""
    found = re.search(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z", data)
    return len(found[0]) if found else 0
