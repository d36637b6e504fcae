"""Removes an installed service for its installer: `python -m controlpilot.services.remove NAME FOLDER`.

Program and environment go to the workspace's trash as one entry; `data/` (settings, tables, its own nodes) stays. Links
into the workspace go along as links: what they point to is not touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

from controlpilot.services import INSTALLED
from controlpilot.views.trash import Trash
from trainpilot.errors import ExitCode, PilotError
from trainpilot.workspace import Workspace

STAYS = ("data", ".lock")


def main(arguments: list[str]) -> int:
    """0 and where it lies, or the reason on stderr and 2."""
    if len(arguments) != 2:
        print("usage: python -m controlpilot.services.remove NAME FOLDER", file=sys.stderr)
        return int(ExitCode.BAD_INPUT)
    name, folder = arguments[0], Path(arguments[1])
    # What says "installed" goes first.
    parts = sorted((one for one in folder.iterdir() if one.name not in STAYS), key=lambda one: one.name != INSTALLED)
    if not parts:
        print(f"{name}: nothing is installed in {folder}", file=sys.stderr)
        return int(ExitCode.BAD_INPUT)
    workspace = Workspace.find()
    if not folder.resolve().is_relative_to(workspace.root.resolve()):
        print(f"{name}: {folder} is not in the workspace; what came with the image stays there", file=sys.stderr)
        return int(ExitCode.BAD_INPUT)
    try:
        entry = Trash(workspace).move(parts, f"removed the service {name}")
    except (PilotError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return int(ExitCode.BAD_INPUT)
    print(f"{name}: moved to the trash as {entry.id}; its data stays in {folder / 'data'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
