"""`trainpilot verify`: prove that a LoRA file loads over a base model and does what its weights say."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trainpilot.errors import ExitCode

HELP = "Load a LoRA file over a base model as a generation tool would, and check every key, alpha and output"
EXAMPLE = "trainpilot verify outputs/zorp/zorp.safetensors --base pilot-tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="LoRA, DoRA, LoHa or LoKr file (.safetensors)")
    parser.add_argument("--base", required=True, metavar="MODEL", help="diffusers folder or checkpoint, or its name")
    parser.add_argument("--family", help="model family, where the file does not tell")
    parser.add_argument(
        "--forward",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="compare a forward pass of the whole base too; decided by its size where not given",
    )
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._options import workspace
    from trainpilot.formats.verify import verify
    from trainpilot.models.ondisk import find_base

    result = verify(Path(args.file), find_base(workspace(args), args.base), args.family, forward=args.forward)
    print(json.dumps(result.as_dict()) if args.json else result.text())
    return int(ExitCode.DONE if result.ok else ExitCode.BAD_INPUT)
