"""`trainpilot resize`: a LoRA file at a lower rank, by SVD, with the true error."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Write a LoRA file at a lower rank, by SVD, and say what was lost"
EXAMPLE = "trainpilot resize zorp.safetensors --rank 8 --out zorp-8.safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="LoRA file (.safetensors)")
    parser.add_argument("--rank", type=int, help="highest rank of a module")
    parser.add_argument("--energy", type=float, metavar="SHARE", help="keep this share of the squared norm, 0.99 or so")
    parser.add_argument("--out", metavar="FILE", help="file to write; beside the given one by default")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="", help="number format; the file's else")
    parser.add_argument("--family", help="model family, where the file does not tell")
    parser.add_argument("--each", action="store_true", help="print the error of every module")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.formats.lowrank import Limit
    from trainpilot.formats.resize import resize

    out = Path(args.out) if args.out else None
    done = resize(Path(args.file), out, Limit(args.rank, args.energy), args.dtype, args.family)
    print(json.dumps(done.as_dict(), default=str) if args.json else done.text(args.each))
    return int(ExitCode.DONE)
