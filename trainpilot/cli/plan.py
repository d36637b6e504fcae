"""`trainpilot plan`: everything a run will take, printed before anything is spent."""

from __future__ import annotations

import argparse
import json

from trainpilot.cli import _options

HELP = "Print what a run will take: steps, memory, disk, time, cost"
EXAMPLE = "trainpilot plan --profile standard --dataset 10_zorp --base-model pilot-tiny --price 0.40"


def arguments(parser: argparse.ArgumentParser) -> None:
    _options.arguments(parser)
    parser.add_argument("--price", type=float, metavar="PER_HOUR", help="price of the device an hour, for the cost")
    parser.add_argument(
        "--device", metavar="NAME", help="plan for this GPU, for example 'RTX 4090' (default: the one here)"
    )
    parser.add_argument("--device-gb", type=float, metavar="GB", help="memory of the GPU that --device names")
    parser.add_argument("--tflops", type=float, metavar="TFLOPS", help="arithmetic that training reached on the device")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes that share a run")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import os
    import shutil
    from pathlib import Path

    from trainpilot.datasets.table import build
    from trainpilot.families.card import card
    from trainpilot.models.detect import detect
    from trainpilot.plan import check, make
    from trainpilot.plan.timing import device_here, gpu

    workspace, resolved = _options.resolve(args)
    table = build(resolved.config, workspace)
    memory = round(args.device_gb * 1e9) if args.device_gb else None
    device = gpu(args.device, memory, tflops=args.tflops) if args.device else device_here(os.environ, args.tflops)
    plan = make(
        resolved,
        table,
        card(resolved.config.model.family),
        detect(Path(resolved.config.model.base)),
        price_per_hour=args.price,
        device=device,
        processes=max(1, args.processes),
    )
    check(plan, workspace)
    if args.json:
        print(json.dumps(plan.as_dict()))
    else:
        print(plan.text(shutil.get_terminal_size((100, 24)).columns), end="")
    return 0
