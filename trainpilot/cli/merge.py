"""`trainpilot merge`: several LoRA files as one, or LoRA files into their base model for good."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from trainpilot.errors import ExitCode, PilotError

HELP = "Merge LoRA files into one, or (--base) into the base model"
EXAMPLE = (
    "trainpilot merge zorp.safetensors:0.7 ink.safetensors:0.5 --out zorp-ink.safetensors\n"
    "         trainpilot merge zorp.safetensors:0.8 --base sdxl --out models/sdxl-zorp"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE[:STRENGTH]", help="LoRA files; without :STRENGTH it is 1")
    parser.add_argument("--out", required=True, metavar="PATH", help="file (or, for a base folder, folder) to write")
    parser.add_argument("--base", metavar="MODEL", help="merge into this base: a folder, a file, or a name in models/")
    parser.add_argument("--rank", type=int, help="reduce the sum to this rank; without it ranks are joined, exactly")
    parser.add_argument("--energy", type=float, metavar="SHARE", help="reduce as far as this share of the square stays")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="", help="number format; the files' else")
    parser.add_argument("--to", choices=("kohya", "peft"), help="naming; the first file's else")
    parser.add_argument("--family", help="model family, where the files do not tell")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli import _options

    loras = [_options.lora_at_strength(given, "FILE") for given in args.files]
    try:
        done = _into_base(args, loras) if args.base else _into_one(args, loras)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return int(ExitCode.STOPPED)
    print(json.dumps(done.as_dict(), default=str) if args.json else done.text())  # type: ignore[attr-defined]
    return int(ExitCode.DONE)


def _into_one(args: argparse.Namespace, loras: list[tuple[Path, float]]) -> object:
    from trainpilot.formats.combine import combine
    from trainpilot.formats.lowrank import Limit

    limit = Limit(args.rank, args.energy) if args.rank is not None or args.energy is not None else None
    return combine(loras, Path(args.out), limit, args.dtype, args.to, args.family)


def _into_base(args: argparse.Namespace, loras: list[tuple[Path, float]]) -> object:
    from trainpilot.cli._options import workspace
    from trainpilot.formats.into_base import into_base
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import find_base

    for option in ("rank", "energy", "dtype", "to"):
        if getattr(args, option):
            given = f"--{option} together with --base"
            raise PilotError(f"--{option}", given, "LoRA files into one", "A base keeps its own number format.")
    base = detect(find_base(workspace(args), args.base))
    return into_base(base, loras, Path(args.out), say=lambda text: print(f"  {text}", file=sys.stderr))
