"""`trainpilot dataset balance`: repeats that make all concepts about equally often seen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.cli._dataset import located, path_argument
from trainpilot.errors import ExitCode

HELP = "Reckon repeats that make all concepts about equally often seen, and write the dataset with them"
EXAMPLE = "trainpilot dataset balance my_project --to my_project_balanced"


def arguments(parser: argparse.ArgumentParser) -> None:
    path_argument(parser)
    parser.add_argument("--to", metavar="DIR", help="write the dataset with these repeats as a new folder")


def run(args: argparse.Namespace) -> int:
    from collections import Counter

    from trainpilot.datasets import arrange
    from trainpilot.datasets.layouts import discover
    from trainpilot.datasets.nesting import settle

    _, root = located(args)
    root, _ = settle(root)
    images = discover(root).images
    counts = Counter(arrange.class_of(found, root) for found in images)
    repeats = arrange.balanced(counts)
    shown = {"concepts": {name: {"images": counts[name], "repeats": repeats[name]} for name in counts}}
    lines = [
        f"{repeats[name]}_{name}: {counts[name]} pictures, {counts[name] * repeats[name]} an epoch" for name in counts
    ]
    if args.to:
        target = Path(args.to).expanduser().absolute()
        made = arrange.write(arrange.with_repeats(images, root, repeats), root, target, "repeat folders")
        shown["path"] = str(made.root)  # type: ignore[assignment]
        lines.append(f"written to {made.root}")
    print(json.dumps(shown) if args.json else "\n".join(lines))
    return int(ExitCode.DONE)
