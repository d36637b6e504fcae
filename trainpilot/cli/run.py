"""`trainpilot run FOLDER`: run or continue one run or job, idempotently; what worker, courier and scripts call."""

from __future__ import annotations

import argparse

HELP = "Run or continue the run or job in a folder; a done one says so"
EXAMPLE = "trainpilot run workspace/outputs/zorp"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a run folder, or a job folder")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; the rest goes to stderr")


def run(args: argparse.Namespace) -> int:
    import os
    from pathlib import Path

    from trainpilot.cli._execute import execute
    from trainpilot.cli._settled import settled
    from trainpilot.errors import ExitCode
    from trainpilot.runs.jobdir import FILE, JobDir
    from trainpilot.runs.rundir import RunDir
    from trainpilot.runs.stop import StopFlag
    from trainpilot.runs.taskdir import STARTED_BY

    path = Path(args.folder)
    with StopFlag() as stop:
        if (path.expanduser() / FILE).is_file():
            job = JobDir.open(path)
            was = job.job
            if was is not None and was.status == "done":
                return settled(job, f"job {job.name} is done: {was.reason}", ExitCode.DONE, args.json)
            # In a shell a person continues what a person stopped; a worker that was too late to notice does not.
            if was is not None and was.exit_code == ExitCode.STOPPED and STARTED_BY in os.environ:
                return settled(job, f"job {job.name} was stopped by a person", ExitCode.STOPPED, args.json)
            return execute(job, stop, as_json=args.json)
        found = RunDir.open(path)
        past = found.job
        if past is not None and past.status == "done":
            return settled(found, f"run {found.name} is done: {found.result}", ExitCode.DONE, args.json)
        if past is not None and past.status == "stopped" and past.exit_code == ExitCode.STOPPED:
            text = f"run {found.name} was stopped by a person; `trainpilot resume {found.name}` continues it"
            return settled(found, text, ExitCode.STOPPED, args.json)
        return execute(found, stop, as_json=args.json)
