"""`trainpilot dataset repeats`: the guides' calculator."""

from __future__ import annotations

import argparse
import json

from trainpilot.cli._dataset import located
from trainpilot.errors import ExitCode, PilotError

HELP = "Reckon repeats: target steps / epochs / pictures x batch size"
EXAMPLE = "trainpilot dataset repeats --steps 1000 --epochs 10 --images 10 --batch 2"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="?", help="count the pictures of this dataset")
    parser.add_argument("--images", type=int, metavar="N", help="or say how many there are")
    parser.add_argument(
        "--steps", type=int, default=1000, metavar="N", help="steps of the run (default 1000, a concept)"
    )
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="epochs of the run (default 10)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="batch size (default 1)")


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets.arrange import repeats_for
    from trainpilot.datasets.layouts import discover
    from trainpilot.datasets.nesting import settle

    images = args.images
    if args.path:
        images = len(discover(settle(located(args)[1])[0]).images)
    for name, value in (
        ("--images", images),
        ("--steps", args.steps),
        ("--epochs", args.epochs),
        ("--batch", args.batch),
    ):
        if not value or value < 1:
            raise PilotError(name, value if value is not None else "nothing", "1 or more", "Give PATH or --images N.")
    repeats = repeats_for(args.steps, args.epochs, images, args.batch)
    steps = -(-images * repeats // args.batch) * args.epochs
    shown = {"repeats": repeats, "images": images, "steps": steps}
    told = f"{repeats} repeats: {images} pictures x {repeats} / {args.batch} x {args.epochs} epochs = {steps} steps"
    print(json.dumps(shown) if args.json else told)
    return int(ExitCode.DONE)
