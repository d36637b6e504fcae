"""`trainpilot dataset fix`: mend what the check found; the originals go to the trash."""

from __future__ import annotations

import argparse
import json

from trainpilot.cli._dataset import common_arguments, located, path_argument
from trainpilot.errors import ExitCode

HELP = "Mend what the check found; the originals go to the trash"
EXAMPLE = "trainpilot dataset fix my_photos duplicates --near --dry-run"
MOST_NAMED = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    from trainpilot.datasets.fixes import fixes

    path_argument(parser)
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, fix in fixes().items():
        sub = kinds.add_parser(name, help=fix.HELP, description=fix.HELP)
        for key, field in fix.Params.model_fields.items():
            flag, text = f"--{key.replace('_', '-')}", field.description
            if field.annotation is bool:
                sub.add_argument(flag, action="store_true", help=text)
            elif field.is_required():
                sub.add_argument(flag, required=True, help=text)
            else:
                sub.add_argument(flag, default=field.default, help=f"{text} (default: {field.default})")
        common_arguments(sub, inner=True)
        sub.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(args: argparse.Namespace) -> int:
    from trainpilot.datasets.fixes import find, options_of
    from trainpilot.datasets.layouts import printable
    from trainpilot.datasets.mending import Subject, apply

    place, root = located(args)
    fix = find(args.kind)
    params = options_of(args.kind, {key: getattr(args, key) for key in fix.Params.model_fields})
    dataset = Subject(root, place)
    steps = list(fix.steps(dataset, params))
    rows = [{"file": printable(step.file), "why": step.why, "rewritten": step.make is not None} for step in steps]
    shown = {"files": rows, "done": False}
    if steps and not args.dry_run:
        done = apply(dataset, steps, f"dataset fix {args.kind}: {dataset.root.name}")
        shown |= {"done": True, "trash": list(done.entries), "trash_folder": str(done.trash)}
    print(json.dumps(shown) if args.json else _text(shown, rows, args.dry_run))
    return int(ExitCode.DONE)


def _text(shown: dict[str, object], rows: list[dict[str, object]], dry: bool) -> str:
    if not rows:
        return "nothing to mend"
    verbs = ("rewrite", "take away") if dry else ("rewritten", "taken away")
    lines = [f"{verbs[0] if row['rewritten'] else verbs[1]}  {row['file']}: {row['why']}" for row in rows[:MOST_NAMED]]
    if len(rows) > MOST_NAMED:
        lines.append(f"and {len(rows) - MOST_NAMED} more")
    if not dry:
        lines.append(f"the originals are in {shown['trash_folder']}: {', '.join(map(str, shown['trash']))}")  # type: ignore[call-overload]
    return "\n".join(lines)
