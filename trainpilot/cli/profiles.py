"""`trainpilot profiles`: the profiles there are, or one of them in full."""

from __future__ import annotations

import argparse
import json

HELP = "List the profiles, or print one"
EXAMPLE = "trainpilot profiles standard"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this profile's file")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from rich.table import Table

    from trainpilot.cli import _options
    from trainpilot.config.describe import did_you_mean
    from trainpilot.config.document import profile_tables
    from trainpilot.errors import PilotError
    from trainpilot.profiles import about, profiles

    workspace = _options.workspace(args)
    known = profiles(workspace)
    if args.name:
        if args.name not in known:
            raise PilotError("profile", args.name, ", ".join(known), did_you_mean(args.name, known, "Choose one."))
        text = known[args.name].read_text(encoding="utf-8")
        print(
            json.dumps(profile_tables(workspace, args.name)) if args.json else text, end="" if not args.json else "\n"
        )
        return 0
    found = [about(path) for path in known.values()]
    if args.json:
        rows = [{"name": p.name, "label": p.label, "help": p.help, "path": str(p.path)} for p in found]
        print(json.dumps(rows))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("profile", "label", "what for"):
        table.add_column(title, overflow="fold")
    for profile in found:
        table.add_row(profile.name, profile.label, profile.help)
    _options.console().print(table)
    return 0
