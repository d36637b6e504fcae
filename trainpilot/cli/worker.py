"""`trainpilot worker`: run what is queued, one run on each device."""

from __future__ import annotations

import argparse

HELP = "Run what is queued, one run on each device"
EXAMPLE = "trainpilot worker"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until-idle", action="store_true", help="end when nothing waits and nothing runs")
    parser.add_argument("--devices", metavar="A,B", help="devices to use: UUIDs of GPUs, or cpu (default: all)")
    parser.add_argument(
        "--heartbeat", type=float, default=300.0, metavar="S", help="seconds without a sign of life in training"
    )
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    import json

    from trainpilot.cli._options import workspace
    from trainpilot.errors import PilotError
    from trainpilot.runs.worker import Rules, Worker

    if args.heartbeat <= 0:
        raise PilotError("--heartbeat", args.heartbeat, "more than 0 seconds", "The default is 300.")

    def tell(text: str) -> None:
        print(json.dumps({"worker": text}) if args.json else text, flush=True)

    devices = [name.strip() for name in (args.devices or "").split(",") if name.strip()]
    rules = Rules(heartbeat=args.heartbeat, slow_heartbeat=max(args.heartbeat, Rules.slow_heartbeat))
    return Worker(workspace(args), devices=devices, rules=rules, tell=tell).run(until_idle=args.until_idle)
