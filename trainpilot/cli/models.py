"""`trainpilot models`: the base models on disk and what they are."""

from __future__ import annotations

import argparse
import json

HELP = "List the base models on disk, or say what one is"
EXAMPLE = "trainpilot models pilot-tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a path, or a name in models/")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from rich.table import Table

    from trainpilot.cli import _options
    from trainpilot.errors import PilotError
    from trainpilot.models.detect import Base, detect
    from trainpilot.models.ondisk import candidates, find_base
    from trainpilot.plan.plan import gigabytes

    workspace = _options.workspace(args)
    found: list[Base] = []
    broken: list[PilotError] = []
    if args.model:
        found.append(detect(find_base(workspace, args.model)))
    else:
        for path in candidates(workspace):
            try:
                found.append(detect(path))
            except PilotError as error:
                broken.append(error)
    if args.json:
        rows: list[dict[str, object]] = [_row(base) for base in found]
        print(json.dumps(rows + [{"path": problem.where, "problem": problem.as_dict()} for problem in broken]))
        return 0
    if not found and not broken:
        print(f"no base models in {workspace.models}")
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("model", "family", "variant", "predicts", "size", "recognised by"):
        table.add_column(title, overflow="fold")
    for base in found:
        size = gigabytes(base.size_bytes)
        table.add_row(str(base.path), base.family, base.variant, base.prediction, size, base.reason)
    console = _options.console()
    console.print(table)
    for problem in broken:
        console.print(problem.message, highlight=False, markup=False)
    return 0


def _row(base: object) -> dict[str, object]:
    from trainpilot.models.detect import Base

    assert isinstance(base, Base)
    names = ("family", "layout", "prediction", "variant", "size_bytes", "tiny", "reason", "resolution", "parameters")
    return {"path": str(base.path)} | {name: getattr(base, name) for name in names}
