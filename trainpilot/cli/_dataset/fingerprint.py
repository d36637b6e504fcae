"""`trainpilot dataset fingerprint`: one hash of pictures, captions, masks and repeats."""

from __future__ import annotations

import argparse
import json

from trainpilot.cli._dataset import located, path_argument
from trainpilot.errors import ExitCode

HELP = "Print one hash of a dataset's pictures, captions and repeats, as runs record it"
EXAMPLE = "trainpilot dataset fingerprint 10_zorp"


def arguments(parser: argparse.ArgumentParser) -> None:
    path_argument(parser)


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets.since import table_of

    place, root = located(args)
    table = table_of(root, place)
    shown = {"fingerprint": table.fingerprint(), "images": len(table.samples)}
    print(json.dumps(shown) if args.json else f"{shown['fingerprint']}  {root} ({len(table.samples)} pictures)")
    return int(ExitCode.DONE)
