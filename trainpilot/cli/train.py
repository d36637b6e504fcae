"""`trainpilot train`: make a run folder from a configuration and run it here."""

from __future__ import annotations

import argparse

from trainpilot.cli import _options

HELP = "Train a LoRA: plan it, make its run folder, run it"
EXAMPLE = "trainpilot train --profile standard --dataset 10_zorp --base-model pilot-tiny --name zorp"


def arguments(parser: argparse.ArgumentParser) -> None:
    _options.arguments(parser)
    parser.add_argument(
        "--prepare", action="store_true", help="make the run folder and end; `trainpilot run FOLDER` runs it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON at the end; the rest goes to stderr")


def run(args: argparse.Namespace) -> int:
    import json

    from trainpilot.cli._execute import execute
    from trainpilot.cli._preparing import prepare, several_processes
    from trainpilot.errors import ExitCode, PilotError
    from trainpilot.runs.stop import StopFlag, StopRequested

    if several_processes():
        remedy = (
            "Make the folder with `trainpilot train --prepare`, then: accelerate launch --multi_gpu --num_processes N "
            "-m trainpilot run FOLDER (on CPUs: torchrun --nproc-per-node N -m trainpilot run FOLDER)."
        )
        raise PilotError("train", "started as one of several processes", "one process, which makes the folder", remedy)
    with StopFlag() as stop:
        try:
            made = prepare(args, stop)
        except StopRequested as asked:
            print(f"{asked.reason}; nothing was made")
            return int(asked.kind)
        if args.prepare:
            if args.json:
                print(json.dumps({"run": made.name, "folder": str(made.path)}))
            return int(ExitCode.DONE)
        return execute(made, stop, as_json=args.json)
