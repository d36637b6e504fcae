"""`trainpilot metadata`: what a LoRA file tells of itself, and changing it with true hashes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode, PilotError

HELP = "Show what a LoRA file tells of itself; change it with --set and --unset"
EXAMPLE = 'trainpilot metadata zorp.safetensors --set title="Zorp" --set trigger=zorp'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="LoRA file (.safetensors)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="title, author, description, license, trigger, tags, usage, comment, or any key such as modelspec.title",
    )
    parser.add_argument("--unset", action="append", default=[], metavar="NAME", help="remove a key")
    parser.add_argument("--out", metavar="FILE", help="write a new file instead of changing this one")
    parser.add_argument("--all", action="store_true", help="show every key as it is")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.formats.account import account, lora_line
    from trainpilot.formats.edit import edit, hashes_of
    from trainpilot.formats.identify import identify

    path = Path(args.file)
    identify(path)
    changes = dict(_pair(given) for given in args.set) | dict.fromkeys(args.unset)
    out = Path(args.out) if args.out else None
    changed = edit(path, changes, out) if changes or out else {}
    about = identify(out or path)
    hashes = hashes_of(about.path)
    rows = account(about)
    if args.json:
        document = {"changed": changed, "account": dict(rows), "metadata": about.metadata}
        print(json.dumps(document | {"hashes": hashes.true, "hashes_right": hashes.right, "about": about.as_dict()}))
        return int(ExitCode.DONE)
    print(about.path)
    for name, text in rows:
        print(f"  {name:<15} {text}")
    right = "as they should be" if hashes.right else f"WRONG in the header: {hashes.stored}"
    print(f"  {'hashes':<15} {', '.join(f'{k} {v}' for k, v in hashes.true.items())} ({right})")
    print(f"  {'in a prompt':<15} {lora_line(about.path)}")
    if args.all:
        for key, text in sorted(about.metadata.items()):
            print(f"  {key} = {text if len(text) <= 200 else text[:200] + f' ... ({len(text):,} characters)'}")
    for key, (before, after) in changed.items():
        print(f"changed {key}: {before[:80]!r} -> {after[:80]!r}")
    return int(ExitCode.DONE)


def _pair(given: str) -> tuple[str, str]:
    name, equals, text = given.partition("=")
    if not equals:
        raise PilotError("--set", given, "NAME=TEXT", 'For example --set title="My LoRA".')
    return name.strip(), text
