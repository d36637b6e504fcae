"""`trainpilot run FOLDER`: run or continue one run, idempotently; what worker, scripts and fleets call."""

from __future__ import annotations

import argparse

HELP = "Run or continue the run in a folder; a done one says so"
EXAMPLE = "trainpilot run workspace/outputs/zorp"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="a run folder")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; the rest goes to stderr")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from trainpilot.cli._execute import execute
    from trainpilot.cli._settled import settled
    from trainpilot.errors import ExitCode
    from trainpilot.runs.rundir import RunDir
    from trainpilot.runs.stop import StopFlag

    with StopFlag() as stop:
        found = RunDir.open(Path(args.folder))
        job = found.job
        if job is not None and job.status == "done":
            return settled(found, f"run {found.name} is done: {found.result}", ExitCode.DONE, args.json)
        if job is not None and job.status == "stopped" and job.exit_code == ExitCode.STOPPED:
            text = f"run {found.name} was stopped by a person; `trainpilot resume {found.name}` continues it"
            return settled(found, text, ExitCode.STOPPED, args.json)
        return execute(found, stop, as_json=args.json)
