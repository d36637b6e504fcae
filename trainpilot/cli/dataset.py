"""`trainpilot dataset`: check a dataset, mend it, arrange it anew, reckon repeats, see what changed.

Each sub-command is a file of `trainpilot/cli/_dataset/`.
"""

from __future__ import annotations

import argparse
from typing import Any

from trainpilot.cli._dataset import commands, common_arguments

HELP = "Check a dataset, mend it, convert its layout, reckon repeats"
EXAMPLE = "trainpilot dataset check 10_zorp --trigger zorp --type object --base-model pilot-tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    for name, command in commands().items():
        about: Any = command
        sub = verbs.add_parser(
            name,
            help=about.HELP,
            description=about.HELP,
            epilog=f"example: {about.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        about.arguments(sub)
        common_arguments(sub)


def run(args: argparse.Namespace) -> int:
    return int(commands()[args.do].run(args))
