"""The answer of a verb that finds nothing to do. Used by `run` and `resume`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trainpilot.errors import ExitCode

if TYPE_CHECKING:
    from trainpilot.runs.taskdir import TaskDir


def settled(run: TaskDir, text: str, code: ExitCode, as_json: bool) -> int:
    """Print why nothing is done, and return `code`."""
    job = run.job
    status = job.status if job else "new"
    print(
        json.dumps({run.WORD: run.name, "status": status, "reason": text, "exit_code": int(code)}) if as_json else text
    )
    return int(code)
