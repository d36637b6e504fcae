"""Run a run or a job in this process: take it and its device, work, and write what became of it.

Used by `train`, `run` and `resume`. Whatever happens here, job.json is true afterwards and the exit code is one of the
contracts'.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.devices import CPU, VISIBLE, devices
from trainpilot.runs.job import Status
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.locks import FileLock, device_lock
from trainpilot.runs.log import RunLog
from trainpilot.runs.process import Identity
from trainpilot.runs.progress import Progress, duration
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.state import StateFile
from trainpilot.runs.stop import StopFlag, StopRequested
from trainpilot.runs.taskdir import TaskDir

WAIT = 0.5  # seconds between two tries for a device


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, in the engine's own words."""

    status: Status
    reason: str
    exit_code: ExitCode


def execute(run: TaskDir, stop: StopFlag, *, as_json: bool = False) -> int:
    """Work on `run` from where it is, and return the exit code. Raises PilotError, recorded, where a person must act.

    A run trains; a job does what its kind does.
    """
    screen = sys.stderr if as_json else sys.stdout
    if int(os.environ.get("RANK", "0")) > 0:
        run.follow()
        return _work(run, stop, Progress(out=_nowhere()))
    run.hold()
    with RunLog(run.log) as log:
        # Where a hang is found, the worker aborts us: the stacks of all threads then stand in the log.
        faulthandler.enable(file=log.text.fileno(), all_threads=True)
        progress = Progress(out=screen, log=None if log.inherited else log.text)
        if progress.console.is_terminal:
            log.show = progress.above
        locks: list[FileLock] = []
        begun = time.monotonic()
        try:
            code = _attempt(run, stop, progress, locks)
        except PilotError as error:
            if not log.inherited:  # otherwise the verb's own message goes there
                log.text.write(error.text() + "\n")
            raise
        finally:
            log.show = None
            progress.close()
            for lock in locks:
                lock.release()
            run.lock.release()
            faulthandler.disable()
        _tell_end(run, code, time.monotonic() - begun, as_json)
    return code


def _attempt(run: TaskDir, stop: StopFlag, progress: Progress, locks: list[FileLock]) -> int:
    try:
        device = _take_devices(run, stop, progress, locks) if _needs_device(run) else None
    except StopRequested as asked:
        run.retire(asked.reason, asked.kind)
        return int(asked.kind)
    attempt = run.begin_attempt(device)
    stop.requests, stop.beat = run.requests, run.state.beat
    # A second SIGINT leaves at once: nobody outside is told then.
    stop.last_words = lambda asked: run.finish("stopped", asked.reason, asked.kind, tell=False)
    progress.say(f"{run.WORD} {run.name}, attempt {attempt}{f', on {device}' if device else ''}")
    run.state.write("start")
    return _work(run, stop, progress)


def _needs_device(run: TaskDir) -> bool:
    return not isinstance(run, JobDir) or run.resource == "gpu"


def _work(run: TaskDir, stop: StopFlag, progress: Progress) -> int:
    """Call the engine, or the job's kind, and record the ending, whichever it is."""
    try:
        if isinstance(run, JobDir):
            stop.check()
            ending: Any = Ending("done", run.kind.run(run, run.params, progress, stop), ExitCode.DONE)
        else:
            assert isinstance(run, RunDir)
            train = _engine()
            stop.check()
            ending = train(run, run.resolved, progress=progress, stop=stop)
    except StopRequested as asked:
        run.finish("stopped", asked.reason, asked.kind)
        return int(asked.kind)
    except PilotError as error:
        run.finish("failed", error.message, error.exit_code)
        raise
    except Exception as error:  # noqa: BLE001 - a defect anywhere must still leave a true job.json
        traceback.print_exc()
        run.finish("failed", f"{type(error).__name__}: {error}", ExitCode.FAILED)
        return int(ExitCode.FAILED)
    if ending.status not in ("stopped", "failed", "done"):
        raise ValueError(f"an ending cannot be {ending.status!r}")
    run.finish(ending.status, ending.reason, ending.exit_code)
    return int(ending.exit_code)


def _engine() -> Callable[..., Any]:
    """The trainer, imported only here: everything before it works without torch."""
    try:
        from trainpilot.engine.trainer import train
    except ModuleNotFoundError as error:
        remedy = "Install them: bash scripts/setup.sh"
        raise PilotError("trainer", f"{error.name} is missing", "the packages of the extra `train`", remedy) from error
    return train


def _take_devices(run: TaskDir, stop: StopFlag, progress: Progress, locks: list[FileLock]) -> str:
    """Lock a free device and leave only it visible to torch, or the first ones, one for each process of the run.

    Waits where they are in use. Returns their names. Raises StopRequested.
    """
    names, why = devices()
    wanted = int(os.environ.get("WORLD_SIZE", "1")) if names != [CPU] else 1
    if wanted > len(names):
        remedy = f"Start at most {len(names)} processes."
        raise PilotError("devices", f"{wanted} processes, {len(names)} devices ({why})", "a device for each", remedy)
    candidates = names if wanted == 1 else names[:wanted]  # the other processes count devices from the first, too
    waiting = False
    while True:
        for name in candidates:
            lock = device_lock(name)
            if len(locks) < wanted and lock.acquire(run=run.path):
                locks.append(lock)
                if len(locks) == wanted > 1:
                    return ",".join(candidates)
                if len(locks) == wanted:
                    if name != CPU:
                        os.environ[VISIBLE] = name
                    return name
        if not waiting:
            waiting = True
            run.wait_for(",".join(names))
            progress.say(f"waiting for {', '.join(names)}: {_user_of(device_lock(names[0]))}")
        for lock in locks:
            lock.release()  # a part of what we need is not kept from others while we wait
        locks.clear()
        StateFile(run.path / "state.json", run.attempt).write("wait", waits_for=names)
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            stop.check()
            time.sleep(0.05)


def _user_of(lock: FileLock) -> str:
    about = lock.holder()
    holder = Identity.parse(about.get("holder"))
    return f"used by {about.get('run', 'another run')}, process {holder.pid}" if holder else "in use"


def _tell_end(run: TaskDir, code: int, seconds: float, as_json: bool) -> None:
    job = run.job
    status, reason = (job.status, job.reason) if job else ("unknown", "")
    found = {name: str(path) for name, path in run.places.items() if path.exists()}
    if as_json:
        print(json.dumps({run.WORD: run.name, "status": status, "reason": reason, "exit_code": code, **found}))
        return
    print(f"{run.name}: {status} after {duration(seconds)}{f' ({reason})' if reason else ''}")
    for name, path in found.items():
        print(f"  {name:<8} {path}")
    if status != "done":
        again = f"run {run.path}" if isinstance(run, JobDir) else f"resume {run.name}"
        print(f"  continue with: trainpilot {again}")


def _nowhere() -> TextIO:
    return open(os.devnull, "w")  # noqa: PTH123 - lives as long as the process
