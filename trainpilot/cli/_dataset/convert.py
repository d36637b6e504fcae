"""`trainpilot dataset convert`: write a dataset in another layout, beside the old one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.cli._dataset import located, path_argument
from trainpilot.errors import ExitCode

HELP = "Write a dataset in another of the six layouts, beside the old one"
EXAMPLE = "trainpilot dataset convert 10_zorp metadata --to zorp_for_the_hub"


def arguments(parser: argparse.ArgumentParser) -> None:
    from trainpilot.datasets.arrange import LAYOUTS

    names = [name.replace(" ", "-") for name in LAYOUTS]
    path_argument(parser)
    parser.add_argument("layout", choices=names, metavar="LAYOUT", help=", ".join(names))
    parser.add_argument("--to", metavar="DIR", help="new folder (default: beside the old one)")


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets import arrange
    from trainpilot.datasets.layouts import discover
    from trainpilot.datasets.nesting import settle

    _, root = located(args)
    root, _ = settle(root)
    images = discover(root).images
    layout = args.layout.replace("-", " ")
    target = Path(args.to).expanduser().absolute() if args.to else arrange.target_of(root, layout, images)
    made = arrange.write(images, root, target, layout)
    shown = {"path": str(made.root), "layout": made.kind, "images": len(made.images)}
    print(json.dumps(shown) if args.json else f"{made.root}: {made.kind}, {len(made.images)} pictures")
    return int(ExitCode.DONE)
