"""`trainpilot resume RUN`: continue a run, also one that a person stopped, with the same or other settings."""

from __future__ import annotations

import argparse

HELP = "Continue a run from its last checkpoint, with the same or other settings"
EXAMPLE = "trainpilot resume zorp --set training.steps=3000"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name of a run, or its folder")
    parser.add_argument(
        "--set",
        action="append",
        dest="overrides",
        metavar="SECTION.KEY=VALUE",
        help="change a setting from here on; written as run.2.toml, run.3.toml ...",
    )
    parser.add_argument("--queue", action="store_true", help="leave it to the worker instead of running it here")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; the rest goes to stderr")


def run(args: argparse.Namespace) -> int:
    import json
    import os

    from trainpilot.cli._execute import execute
    from trainpilot.cli._options import workspace
    from trainpilot.cli._preparing import several_processes
    from trainpilot.cli._settled import settled
    from trainpilot.config.merge import resolve
    from trainpilot.errors import ExitCode, PilotError
    from trainpilot.runs.rundir import RunDir, configurations
    from trainpilot.runs.stop import StopFlag

    if several_processes() and args.overrides:
        remedy = "Change them in one process (trainpilot resume RUN --set ... --queue), then start the processes."
        raise PilotError("resume --set", "started as one of several processes", "one process", remedy)
    with StopFlag() as stop:
        place = workspace(args)
        found = RunDir.find(place, args.run)
        job = found.job
        if job is not None and job.status == "done" and not args.overrides:
            text = f"run {found.name} is done; to train on, say until when: --set training.steps=N"
            return settled(found, text, ExitCode.DONE, args.json)
        if int(os.environ.get("RANK", "0")) > 0:
            return execute(found, stop)  # the first process speaks for the run
        found.hold()
        if args.overrides:
            # The environment spoke when the folder was made: only what is said here changes.
            found.change(resolve(place, file=configurations(found.path)[-1], overrides=args.overrides))
        found.queue("resumed by a person")
        if args.queue:
            found.lock.release()
            text = f"{found.name} waits for the worker"
            print(json.dumps({"run": found.name, "status": "queued"}) if args.json else text)
            return int(ExitCode.DONE)
        return execute(found, stop, as_json=args.json)
