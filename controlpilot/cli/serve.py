"""`controlpilot serve`: the panel behind a production server."""

from __future__ import annotations

import argparse

HELP = "Serve the panel"
EXAMPLE = "controlpilot serve --port 7878"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--host", metavar="ADDRESS", help="address to listen on (else PILOT_HOST, else 127.0.0.1)")
    parser.add_argument("--port", type=int, metavar="PORT", help="port to listen on (else PILOT_PORT, else 7878)")
    parser.add_argument("--socket", metavar="FILE", help="unix socket to listen on instead, for the gateway alone")
    parser.add_argument("--alone", action="store_true", help="start no worker and no courier beside the panel")


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import os
    from pathlib import Path

    from controlpilot.serving import serve
    from controlpilot.settings import Settings

    environ = dict(os.environ)
    for name, value in (("PILOT_WORKSPACE", args.workspace), ("PILOT_HOST", args.host), ("PILOT_PORT", args.port)):
        if value is not None:
            environ[name] = str(value)
    settings = Settings.find(environ)
    if args.socket:
        settings = dataclasses.replace(settings, socket=Path(args.socket))
    # Behind the gateway supervisord runs the worker and the courier.
    return serve(settings, helpers=not args.alone and settings.socket is None and settings.supervisor is None)
