"""`controlpilot openapi`: print the description of the API."""

from __future__ import annotations

import argparse

HELP = "Print the description of the API (OpenAPI 3.1, JSON)"
EXAMPLE = "controlpilot openapi > openapi.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="it is JSON anyway; for uniformity")


def run(args: argparse.Namespace) -> int:
    import json

    from controlpilot.api._openapi import describe
    from controlpilot.app import API, create_app
    from controlpilot.settings import Settings

    print(json.dumps(describe(create_app(Settings.find()), API), indent=1))
    return 0
