"""`controlpilot services`: list, start, stop, restart, logs, enable, disable, install, remove."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controlpilot.settings import Settings
    from controlpilot.views.services import ServiceList

HELP = "See and change what runs in the pod"
EXAMPLE = "controlpilot services restart tensorboard"
DOES = {
    "start": "start it now",
    "stop": "stop it now; it starts again with the pod if it is enabled",
    "restart": "stop it and start it again",
    "logs": "its output",
    "enable": "start it with the pod",
    "disable": "do not start it with the pod",
    "install": "install one that comes on demand; the worker does it",
    "remove": "remove an installed one, and keep its data",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    every = [verbs.add_parser("list", help="what there is and what runs")]
    for name, help in DOES.items():
        every.append(one := verbs.add_parser(name, help=help))
        one.add_argument("name", metavar="NAME", help="name of a service, as the list says")
        if name == "logs":
            one.add_argument("--follow", action="store_true", help="go on with what is written")
    for one in every:
        one.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
        one.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import os

    from controlpilot.settings import Settings
    from controlpilot.supervisor import Supervisor
    from controlpilot.views import services as views

    environ = dict(os.environ) | ({"PILOT_WORKSPACE": args.workspace} if args.workspace else {})
    settings = Settings.find(environ)
    workspace = settings.workspace
    supervisor = Supervisor(settings.supervisor) if settings.supervisor else None
    if args.do == "list":
        found = views.listing(workspace, supervisor)
        print(found.model_dump_json() if args.json else _text(found))
        return 0
    if args.do == "logs":
        return _logs(args, settings, supervisor)
    shown: Any
    if args.do in ("start", "stop", "restart"):
        shown = views.act(workspace, supervisor, args.name, args.do)
        text = f"{shown.name}: {shown.state}"
    elif args.do in ("install", "remove"):
        shown = views.install(workspace, args.name, args.do)
        text = f"job {shown.id}: {shown.status}. {shown.nobody_works}".strip()
    else:
        views.set_autostart(workspace, args.name, args.do == "enable")
        shown = views.one(workspace, supervisor, args.name)
        text = f"{shown.name}: {'starts' if shown.autostart else 'does not start'} with the pod, from the next start on"
    print(shown.model_dump_json() if args.json else text)
    return 0


def _logs(args: argparse.Namespace, settings: Settings, supervisor: Any) -> int:
    import time

    from controlpilot.views import services as views

    after: int | None = None
    while True:
        part = views.log(settings.workspace, supervisor, args.name, after)
        print(part.model_dump_json() if args.json else part.text, end="\n" if args.json else "", flush=True)
        if not args.follow:
            return 0
        if part.end == part.size:
            time.sleep(0.5)
        after = part.end


def _text(found: ServiceList) -> str:
    lines = [found.note] if found.note else []
    for row in found.services:
        words = "" if row.installed else f"controlpilot services install {row.name}"
        words = words or row.reason or row.label
        enabled = "with the pod" if row.autostart else "on demand"
        lines.append(f"{row.name:14} {row.state:10} {enabled:12} {words}")
        lines += [f"    {line}" for line in row.last_lines.splitlines()]
    return "\n".join(lines)
