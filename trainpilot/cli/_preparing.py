"""From the command line's configuration to a run folder: resolved, scanned, planned, checked, made.

Used by `train` and `queue add`. Nothing is written before everything has been checked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainpilot.cli import _options
from trainpilot.runs.stop import StopFlag

if TYPE_CHECKING:
    from trainpilot.runs.rundir import RunDir


def prepare(args: argparse.Namespace, stop: StopFlag) -> RunDir:
    """Plan the run, print the plan (on stderr where the command answers in JSON), and make its folder.

    Raises PilotError or Problems, or StopRequested; nothing has been made then.
    """
    from trainpilot.datasets.table import build
    from trainpilot.families.card import card
    from trainpilot.models.detect import detect
    from trainpilot.plan import check, make
    from trainpilot.runs.rundir import RunDir

    workspace, resolved = _options.resolve(args)
    config = resolved.config
    table = build(config, workspace, progress=lambda done, of: stop.check())
    plan = make(resolved, table, card(config.model.family), detect(Path(config.model.base)))
    out = sys.stderr if args.json else sys.stdout
    print(plan.text(shutil.get_terminal_size((100, 24)).columns), end="", file=out)
    check(plan, workspace)
    stop.check()
    run = RunDir.create(workspace, resolved, json.loads(json.dumps(plan.as_dict(), default=str)))
    for note in run.notes:
        print(note, file=out)
    print(f"run folder: {run.path}", file=out, flush=True)
    return run


def several_processes() -> bool:
    """Whether this process is one of several that train one run together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
