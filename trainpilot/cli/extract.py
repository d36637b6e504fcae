"""`trainpilot extract`: the difference of two models as a LoRA file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Write the difference of two models as a LoRA file, and say what a rank leaves out"
EXAMPLE = "trainpilot extract sdxl models/sdxl-finetuned --rank 32 --out finetuned.safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="the model that the LoRA is for: folder, file or name in models/")
    parser.add_argument("changed", metavar="CHANGED", help="the model it should become")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    parser.add_argument("--rank", type=int, help="highest rank of a module")
    parser.add_argument("--energy", type=float, metavar="SHARE", help="keep this share of the squared norm, 0.99 or so")
    parser.add_argument("--dtype", choices=("fp16", "bf16", "fp32"), default="fp16", help="number format (fp16)")
    parser.add_argument("--to", choices=("kohya", "peft"), default="kohya", help="naming (kohya)")
    parser.add_argument("--each", action="store_true", help="print the error of every module")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._options import workspace
    from trainpilot.formats.extract import extract
    from trainpilot.formats.lowrank import Limit
    from trainpilot.models.ondisk import find_base
    from trainpilot.runs.progress import Progress

    place = workspace(args)
    base, changed = find_base(place, args.base), find_base(place, args.changed)
    progress = Progress(out=sys.stderr)
    try:
        progress.phase("compare weights")
        done = extract(
            base,
            changed,
            Path(args.out),
            Limit(args.rank, args.energy),
            dtype=args.dtype,
            naming=args.to,
            say=lambda number, of: progress.update(number),
        )
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return int(ExitCode.STOPPED)
    finally:
        progress.close()
    print(json.dumps(done.as_dict(), default=str) if args.json else done.text(args.each))
    return int(ExitCode.DONE)
