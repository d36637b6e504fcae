"""`trainpilot dataset split`: some pictures apart, to validate on."""

from __future__ import annotations

import argparse
import json

from trainpilot.cli._dataset import located, path_argument
from trainpilot.errors import ExitCode, PilotError

HELP = "Write a dataset as two, one to train on and one to validate on; versions of a picture stay together"
EXAMPLE = "trainpilot dataset split my_photos --share 0.1"


def arguments(parser: argparse.ArgumentParser) -> None:
    path_argument(parser)
    parser.add_argument("--share", type=float, default=0.1, metavar="PART", help="part to validate on (default 0.1)")
    parser.add_argument(
        "--seed", type=int, default=42, help="which pictures: the same seed, the same ones (default 42)"
    )


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets import arrange
    from trainpilot.datasets.mending import Subject

    if not 0 < args.share < 1:
        raise PilotError("--share", args.share, "more than 0 and less than 1", "For example 0.1.")
    place, root = located(args)
    dataset = Subject(root, place)
    chosen = {one.image for one in arrange.split(dataset.whole, args.share, args.seed, dataset.copies())}
    shown = {}
    for name, some in (
        ("train", [one for one in dataset.whole if one.image not in chosen]),
        ("validation", [one for one in dataset.whole if one.image in chosen]),
    ):
        target = dataset.root.with_name(f"{arrange.plain(dataset.root.name)}_{name}")
        layout = dataset.layout.kind if dataset.layout.kind != "repeat folder" else "repeat folders"
        made = arrange.write(some, dataset.root, target, layout)
        shown[name] = {"path": str(made.root), "images": len(made.images)}
    lines = [f"{name}: {one['images']} pictures in {one['path']}" for name, one in shown.items()]
    print(json.dumps(shown) if args.json else "\n".join(lines))
    return int(ExitCode.DONE)
