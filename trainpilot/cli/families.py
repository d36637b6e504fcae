"""`trainpilot families`: the model families that can be trained, and what each supports."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "List the model families, or describe one"
EXAMPLE = "trainpilot families sdxl"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="describe this family")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from trainpilot.cli import _options
    from trainpilot.families.card import Card, card, cards

    chosen: list[Card] = [card(args.name)] if args.name else list(cards().values())
    if args.json:
        described = [asdict(one) for one in chosen]
        print(json.dumps(described[0] if args.name else described))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("family", "label", "size", "target presets", "base models"):
        table.add_column(title, overflow="fold")
    for one in chosen:
        bases = "\n".join(f"{base['label']} ({base['licence']})" for base in one.bases)
        # Text, because a licence's name may hold brackets, which rich reads as markup.
        table.add_row(one.name, one.label, f"{one.resolution} px", ", ".join(one.targets), Text(bases))
    console = _options.console()
    console.print(table)
    if args.name:
        console.print("\nsettings without effect")
        for path, reason in chosen[0].no_effect.items():
            console.print(f"  {path}: {reason}", highlight=False, markup=False)
    return 0
