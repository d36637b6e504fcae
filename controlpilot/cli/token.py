"""`controlpilot token`: make, list and revoke the tokens of programs that use the API."""

from __future__ import annotations

import argparse

HELP = "Make, list and revoke tokens for programs"
EXAMPLE = "controlpilot token create 'nightly backup'"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    create = verbs.add_parser("create", help="make one; it is shown this once")
    create.add_argument("name", metavar="NAME", help="what it is for")
    every = [
        create,
        verbs.add_parser("list", help="what there is"),
        revoke := verbs.add_parser("revoke", help="end one"),
    ]
    revoke.add_argument("id", metavar="ID", help="as the list says")
    for one in every:
        one.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
        one.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import json
    import os
    import time

    from controlpilot.auth.tokens import Tokens
    from controlpilot.settings import Settings
    from controlpilot.words import ago_text

    environ = dict(os.environ) | ({"PILOT_WORKSPACE": args.workspace} if args.workspace else {})
    tokens = Tokens(Settings.find(environ).secrets, time.time)
    if args.do == "create":
        token, value = tokens.create(args.name)
        shown = dataclasses.asdict(token) | {"token": value}
        print(json.dumps(shown) if args.json else f"{value}\nIt is not shown again. Send it as Authorization: Bearer.")
    elif args.do == "revoke":
        tokens.revoke(args.id)
        print(json.dumps({"revoked": args.id}) if args.json else f"token {args.id} is revoked")
    else:
        found = tokens.all()
        if args.json:
            print(json.dumps([dataclasses.asdict(one) for one in found]))
        else:
            rows = [
                f"{one.id}  made {ago_text(one.created):14} used {ago_text(one.used):14} {one.name}" for one in found
            ]
            print("\n".join(rows) or "there is no token; make one: controlpilot token create NAME")
    return 0
