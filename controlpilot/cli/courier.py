"""`controlpilot courier`: run the jobs that need the network, send notifications, stop an idle pod."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlpilot.lookout import Lookout

HELP = "Run downloads and other network jobs, send notifications, stop an idle pod"
EXAMPLE = "controlpilot courier"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until-idle", action="store_true", help="end when nothing waits and nothing runs")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--secrets", metavar="DIR", help="folder of the tokens (else PILOT_SECRETS, else in config/)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    import json
    import os

    from controlpilot.courier import Courier
    from controlpilot.settings import Settings

    environ = dict(os.environ)
    for name, value in (("PILOT_WORKSPACE", args.workspace), ("PILOT_SECRETS", args.secrets)):
        if value is not None:
            environ[name] = value
    settings = Settings.find(environ)

    def tell(text: str) -> None:
        print(json.dumps({"courier": text}) if args.json else text, flush=True)

    def lookout() -> Lookout:
        from controlpilot.lookout import Lookout  # most of what the courier loads; downloads do not wait for it

        return Lookout(settings, tell)

    # One that ends by itself was started for its downloads; who looks out stays.
    makes = None if args.until_idle else lookout
    return Courier(settings.workspace, settings.secrets, tell=tell, lookout=makes).run(until_idle=args.until_idle)
