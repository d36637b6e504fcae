"""`controlpilot courier`: run the jobs that need the network and may know the tokens, such as downloads."""

from __future__ import annotations

import argparse

HELP = "Run downloads and other network jobs"
EXAMPLE = "controlpilot courier"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until-idle", action="store_true", help="end when nothing waits and nothing runs")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--secrets", metavar="DIR", help="folder of the tokens (else PILOT_SECRETS, else in config/)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    import json
    import os
    from pathlib import Path

    from controlpilot.courier import Courier
    from trainpilot.workspace import Workspace

    workspace = Workspace(Path(args.workspace).expanduser().resolve()) if args.workspace else Workspace.find()
    given = args.secrets or os.environ.get("PILOT_SECRETS")
    secrets = Path(given).expanduser().resolve() if given else workspace.root / "config" / "panel"

    def tell(text: str) -> None:
        print(json.dumps({"courier": text}) if args.json else text, flush=True)

    return Courier(workspace, secrets, tell=tell).run(until_idle=args.until_idle)
