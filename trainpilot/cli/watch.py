"""`trainpilot watch`: a live dashboard of a run in the terminal."""

from __future__ import annotations

import argparse

HELP = "Watch a run on a live dashboard: progress, loss, samples, GPU"
EXAMPLE = "trainpilot watch zorp"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="name of a run, or its folder; else the newest one")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument(
        "--start",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="start this training command, the rest of the line, and watch the run it makes; Ctrl+C stops it",
    )


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from trainpilot.cli._options import workspace
    from trainpilot.runs.dashboard import follow
    from trainpilot.runs.started import Started, newest

    console = Console()
    place = workspace(args)
    if args.start:
        with Started(args.start, place) as child:
            if (folder := child.run_folder()) is not None:
                follow(folder, console, going=child.going)
            return child.end(console)
    folder = newest(place, args.run)

    def going() -> bool:
        from trainpilot.runs.job import Job

        job = Job.read(folder)
        return job is None or job.live or job.status == "queued"

    try:
        follow(folder, console, going=going)
    except KeyboardInterrupt:
        console.print("The run goes on; `trainpilot watch` shows it again.")
    return 0
