"""`controlpilot password`: set the panel's password, or make a new one."""

from __future__ import annotations

import argparse

HELP = "Set the panel's password; everybody is logged out"
EXAMPLE = "controlpilot password --generate"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--generate", action="store_true", help="make one and print it, instead of asking")
    parser.add_argument("--stdin", action="store_true", help="read it from the first line of the input")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import getpass
    import json
    import os
    import sys

    from controlpilot.auth.passwords import Passwords, generate
    from controlpilot.settings import Settings
    from trainpilot.errors import PilotError

    environ = dict(os.environ) | ({"PILOT_WORKSPACE": args.workspace} if args.workspace else {})
    passwords = Passwords(Settings.find(environ).secrets)
    if args.generate:
        new = generate()
    elif args.stdin:
        new = sys.stdin.readline().rstrip("\r\n")
    else:
        if not sys.stdin.isatty():
            raise PilotError("password", "no terminal to ask at", "--generate or --stdin", "Add one of them.")
        new = getpass.getpass("New password: ")
        if getpass.getpass("Once more: ") != new:
            raise PilotError("password", "two different ones", "the same twice", "Try again.")
    was = passwords.source
    passwords.set(new, "saved")
    shown = {"password": new if args.generate else None, "comes_back": was == "environment"}
    if args.json:
        print(json.dumps(shown))
        return 0
    print(f"The new password is {new}" if args.generate else "The password is set.")
    print("Everybody is logged out; tokens stay valid.")
    if was == "environment":
        print("PILOT_PASSWORD or PILOT_PASSWORD_FILE sets the old one again at the next start: change it there too.")
    return 0
