"""`trainpilot dataset`: check a dataset, and mend what the check found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.cli import _options
from trainpilot.errors import ExitCode

HELP = "Check a dataset, mend it, convert its layout, reckon repeats"
EXAMPLE = "trainpilot dataset check 10_zorp --trigger zorp --type object --base-model pilot-tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    check = verbs.add_parser("check", help="what is wrong with a dataset, where, why, and what helps")
    check.add_argument("path", metavar="PATH", help="folder of pictures, or its name in datasets/")
    check.add_argument("--trigger", action="append", default=[], metavar="WORD", help="trigger word; several in order")
    check.add_argument("--type", default="", choices=["face", "style", "object", "concept"], help="what the LoRA is of")
    check.add_argument("--family", default="", metavar="F", help="model family (see `trainpilot families`)")
    check.add_argument("--base-model", default="", metavar="MODEL", help="base model, whose tokenizers count")
    check.add_argument("--all", action="store_true", help="name every file, not the first few")
    check.add_argument("--html", metavar="FILE", help="write the report as a page with thumbnails")
    check.add_argument("--strict", action="store_true", help="exit with 2 where there is an error")
    for one in (check,):
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")


def run(args: argparse.Namespace) -> int:
    return _check(args)


def _check(args: argparse.Namespace) -> int:
    from trainpilot.datasets.doctor.page import page
    from trainpilot.datasets.doctor.text import text
    from trainpilot.jobs import dataset_check
    from trainpilot.runs.atomic import write_beside

    params = dataset_check.Params(
        path=args.path, type=args.type, triggers=args.trigger, family=args.family, base=args.base_model
    )
    report = dataset_check.examined(_options.workspace(args), params)
    if args.html:
        write_beside(Path(args.html).expanduser(), page(report).encode())
    print(json.dumps(report.as_dict()) if args.json else text(report, every=args.all), end="\n" if args.json else "")
    return int(ExitCode.BAD_INPUT if args.strict and report.errors else ExitCode.DONE)
