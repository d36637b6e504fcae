"""Starts a person's own service: `python -m controlpilot.services.launch_own NAME`, run by supervisord as `pilot`.

It refuses to run as root, so that no mistake in a supervisord file can lift what a notebook wrote.
"""

from __future__ import annotations

import os
import sys

from controlpilot.services import own
from trainpilot.workspace import Workspace


def main(arguments: list[str]) -> int:
    """Becomes the command of the named service; 126 and a reason where it cannot."""
    if len(arguments) != 1:
        print("usage: python -m controlpilot.services.launch_own NAME", file=sys.stderr)
        return 2
    if os.geteuid() == 0:
        print(f"{arguments[0]}: a service of one's own never runs as root", file=sys.stderr)
        return 126
    workspace = Workspace.find()
    try:
        service = own.find(workspace.root / "config" / "services", arguments[0])
    except (own.Refused, OSError) as why:
        print(f"{arguments[0]} is not started: {why}", file=sys.stderr)
        return 126
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    try:
        os.chdir(workspace.root / service.directory)
        os.execvpe(service.command[0], list(service.command), environ | dict(service.environment))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} is not started: {service.command[0]}: {error}", file=sys.stderr)
    return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
