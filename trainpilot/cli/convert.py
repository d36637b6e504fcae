"""`trainpilot convert`: a LoRA file from Kohya's naming to PEFT's, or back."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Write a LoRA file in the other naming: Kohya (ComfyUI, A1111) or PEFT (diffusers)"
EXAMPLE = "trainpilot convert zorp.safetensors --to peft --out zorp.diffusers.safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="LoRA, DoRA, LoHa or LoKr file (.safetensors)")
    parser.add_argument("--to", choices=("kohya", "peft"), help="naming; without it the one the file does not have")
    parser.add_argument("--out", metavar="FILE", help="file to write; beside the given one by default")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="", help="number format; the file's else")
    parser.add_argument("--family", help="model family, where the file does not tell")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.formats.convert import convert

    out = Path(args.out) if args.out else None
    done = convert(Path(args.file), out, args.to, args.dtype, args.family)
    if args.json:
        document = {"source": done.source.as_dict(), "target": done.target.as_dict(), "notes": done.notes}
        print(json.dumps(document))
        return int(ExitCode.DONE)
    modules = ", ".join(f"{number} {prefix}" for prefix, number in done.target.modules.items())
    print(f"{done.source.path} ({done.source.naming}) -> {done.target.path} ({done.target.naming})")
    print(f"  {done.target.family} {done.target.kind}, {done.target.dtype}; modules: {modules}")
    for note in done.notes:
        print(f"  note: {note}")
    return int(ExitCode.DONE)
