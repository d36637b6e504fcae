"""What a new workspace starts with: the template, and the tree of the FLUX guide. As pilot; nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

from controlpilot.boot.report import Report
from controlpilot.boot.users import User
from controlpilot.boot.volume import Volume, within
from trainpilot.errors import PilotError
from trainpilot.guides.tree import grow
from trainpilot.template import seed
from trainpilot.workspace import Workspace

PATIENCE = 30.0  # seconds; 40 files of 12 MiB in all


def fill(template: Path, workspace: Workspace, volume: Volume, pilot: User, report: Report) -> None:
    """Seed in a process of pilot's, so that the files are pilot's."""
    if not volume.writable:
        return
    answer = within(PATIENCE, lambda: _filled(template, workspace), pilot.become)
    if answer is None:
        report.problem(
            "template", f"not finished within {PATIENCE:.0f} s, or broken off; the next start goes on with it"
        )
        return
    good, _, text = answer.partition("\n")
    report.add("ok" if good == "ok" else "problem", "template", text.replace("\n", "; "))


def _filled(template: Path, workspace: Workspace) -> str:
    try:
        done = seed(template, workspace)
        grow(workspace)
    except PilotError as error:
        return f"no\n{error.where}: {error.given}; {error.remedy}"
    except OSError as error:
        return f"no\n{error.filename}: {error.strerror}; what is missing comes with the next start"
    return f"ok\n{done.text()}"
