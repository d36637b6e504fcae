"""Stays above supervisord for the life of the container. At its end every live trainer hears of it first.

supervisord only knows the worker; a trainer whose worker was killed, or that a person started in a shell, is nobody's
child. Each holds a lock on local disk that names its process, so they are found here without the volume.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from trainpilot.runs.locks import FileLock, lock_folder
from trainpilot.runs.process import Identity
from trainpilot.runs.stop import stop_grace

SHARE = 0.92  # of the grace, after which the container ends whatever still runs
TICK = 0.05
STOPPING = (signal.SIGTERM, signal.SIGINT)


def trainers(folder: Path | None = None) -> list[Identity]:
    """The live processes of runs and jobs, by their locks."""
    found = []
    for path in sorted((folder or lock_folder()).glob("folder-*.lock")):
        said = FileLock(path).holder()
        if Path(str(said.get("folder", ""))).name != "run.lock":
            continue  # a worker's or a courier's: supervisord tells those
        holder = Identity.parse(said.get("holder"))
        if holder is not None and holder.alive():
            found.append(holder)
    return found


def keep(command: list[str], environment: Mapping[str, str]) -> int:
    """Run supervisord until it ends or the container is stopped; the container's exit status."""
    asked: list[int] = []
    for number in STOPPING:
        signal.signal(number, lambda given, frame: asked.append(given))
    child = os.fork()
    if child == 0:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        os.execve(command[0], command, dict(environment))
    while not asked:
        if (status := _collect(child)) is not None:
            told = _tell_all()
            print(f"boot: supervisord ended ({status}); {told} trainers are told, the container ends", flush=True)
            _wait(child, time.monotonic() + SHARE * stop_grace(environment), gone=True)
            return status or 1
        time.sleep(TICK)
    deadline = time.monotonic() + SHARE * stop_grace(environment)
    told = _tell_all()
    print(f"boot: stopping; {told} trainers save what they have", flush=True)
    _signal(child, signal.SIGTERM)
    _wait(child, deadline)
    left = len(trainers())
    print(f"boot: stopped{f'; {left} trainers had not finished saving' if left else ''}", flush=True)
    return 0


def _tell_all() -> int:
    return sum(one.signal(signal.SIGTERM) for one in trainers())


def _wait(child: int, deadline: float, gone: bool = False) -> None:
    """Until supervisord and all trainers have ended, or the deadline."""
    while time.monotonic() < deadline:
        gone = gone or _collect(child) is not None
        if gone and not trainers():
            return
        time.sleep(TICK)


def _collect(child: int) -> int | None:
    """Its exit status where it has ended; other children of ours that ended are collected too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            return None


def _signal(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return  # it ended by itself meanwhile
