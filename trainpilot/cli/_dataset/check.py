"""`trainpilot dataset check`: the doctor's report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.cli import _options
from trainpilot.cli._dataset import path_argument
from trainpilot.errors import ExitCode

HELP = "Say what is wrong with a dataset, where, why, and what helps"
EXAMPLE = "trainpilot dataset check 10_zorp --trigger zorp --type object --base-model pilot-tiny --html report.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    path_argument(parser)
    parser.add_argument("--trigger", action="append", default=[], metavar="WORD", help="trigger word; several in order")
    parser.add_argument(
        "--type", default="", choices=["face", "style", "object", "concept"], help="what the LoRA is of"
    )
    parser.add_argument("--family", default="", metavar="F", help="model family (see `trainpilot families`)")
    parser.add_argument("--base-model", default="", metavar="MODEL", help="base model, whose tokenizers count")
    parser.add_argument("--all", action="store_true", help="name every file, not the first few")
    parser.add_argument("--html", metavar="FILE", help="write the report as a page with thumbnails")
    parser.add_argument("--strict", action="store_true", help="exit with 2 where there is an error")


def run(args: argparse.Namespace) -> int:
    import sys

    from trainpilot.datasets.doctor.page import page
    from trainpilot.datasets.doctor.text import text
    from trainpilot.jobs import dataset_check
    from trainpilot.runs.atomic import write_beside
    from trainpilot.runs.progress import Progress

    params = dataset_check.Params(
        path=args.path, type=args.type, triggers=args.trigger, family=args.family, base=args.base_model
    )
    progress = Progress(sys.stderr) if sys.stderr.isatty() else None
    try:
        report = dataset_check.examined(
            _options.workspace(args), params, dataset_check.shown_by(progress) if progress else None
        )
    finally:
        if progress:
            progress.close()
    if args.html:
        write_beside(Path(args.html).expanduser(), page(report).encode())
    print(json.dumps(report.as_dict()) if args.json else text(report, every=args.all), end="\n" if args.json else "")
    return int(ExitCode.BAD_INPUT if args.strict and report.errors else ExitCode.DONE)
