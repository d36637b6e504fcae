"""`python -m controlpilot`, and the `controlpilot` command."""

from __future__ import annotations

import sys
from typing import NoReturn

from controlpilot.cli import main


def program() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    sys.exit(main())


if __name__ == "__main__":
    program()
