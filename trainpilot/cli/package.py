"""`trainpilot package`: a LoRA, its card, samples, settings and hashes in one zip."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Pack a LoRA with its card, samples, settings, trigger and hashes into one zip"
EXAMPLE = "trainpilot package zorp --out zorp.zip"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", metavar="RUN|FILE", help="run by name or folder, or a LoRA file")
    parser.add_argument("--out", metavar="FILE", help="zip to write; beside the LoRA by default")
    about(parser)
    parser.add_argument("--card", action="store_true", help="print the model card and write nothing")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was packed as JSON")


def about(parser: argparse.ArgumentParser) -> None:
    """Options on what the card says; `publish` has them too."""
    parser.add_argument("--base-repo", default="", metavar="OWNER/NAME", help="the base's repository on the Hub")
    parser.add_argument("--licence", "--license", default="", help="licence of the LoRA; the base's by default")
    parser.add_argument("--trigger", default="", help="trigger word; the file's by default")
    parser.add_argument("--no-samples", action="store_true", help="leave the sample pictures out")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._options import workspace
    from trainpilot.formats.model_card import model_card
    from trainpilot.formats.package import package
    from trainpilot.formats.release import gather

    release = gather(
        workspace(args),
        args.lora,
        base_repo=args.base_repo,
        licence=args.licence,
        trigger=args.trigger,
        samples=not args.no_samples,
    )
    if args.card:
        print(model_card(release), end="")
        return int(ExitCode.DONE)
    target = Path(args.out) if args.out else release.file.with_name(f"{release.name}.zip")
    packed = package(release, target)
    if args.json:
        files = [{"name": one.name, "bytes": one.size} for one in packed]
        print(json.dumps({"zip": str(target), "files": files, "warnings": release.warnings}))
        return int(ExitCode.DONE)
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
    for one in packed:
        print(f"  {one.size:>12,}  {one.name}")
    for warning in release.warnings:
        print(f"  note: {warning}")
    return int(ExitCode.DONE)
