"""The command line of the panel: one module of this folder for each verb, found by scanning it.

A verb module is as trainpilot's: HELP (one line), EXAMPLE (a command), `arguments(parser)` and `run(args) -> int`.
Heavy imports happen inside `run`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trainpilot.cli import run_verb


def main(argv: Sequence[str] | None = None) -> int:
    """`controlpilot`: run one verb, and return the exit code."""
    return run_verb(sys.modules[__name__], "controlpilot", "The panel of a LoRA Pilot.", argv)
