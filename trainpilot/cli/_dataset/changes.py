"""`trainpilot dataset changes`: what is different from the data that a run was trained on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from trainpilot.cli import _options
from trainpilot.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainpilot.datasets.since import Changes

HELP = "Say what changed in a run's pictures and captions since it was trained"
EXAMPLE = "trainpilot dataset changes zorp-20260101-120000"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name of a run")


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets.since import compare, recorded
    from trainpilot.datasets.table import build
    from trainpilot.runs.rundir import RunDir

    place = _options.workspace(args)
    before = recorded(place, args.run)
    found = compare(before, build(RunDir.find(place, args.run).config, place))
    print(json.dumps(asdict(found)) if args.json else "\n".join(_lines(found)))
    return int(ExitCode.DONE)


def _lines(changes: Changes) -> Iterator[str]:
    if changes.none:
        yield "nothing changed: pictures, captions, masks and repeats are those of the run"
    for word, paths in (("added", changes.added), ("removed", changes.removed), ("replaced", changes.replaced)):
        yield from (f"{word:9} {path}" for path in paths)
    yield from (f"moved     {old} -> {new}" for old, new in changes.moved.items())
    yield from (f"repeats   {path}: {old} -> {new}" for path, (old, new) in changes.repeats.items())
    if changes.captions:
        yield "captions or masks changed; the pictures are the same"
