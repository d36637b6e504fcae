"""`python -m trainpilot`, and the `trainpilot` command."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

from trainpilot.cli import main


def program() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    code = main()
    if "torch" in sys.modules:
        # Taking torch apart at the end takes the interpreter seconds that a stop within the grace does not have.
        # Everything is on disk by now: what was registered for the end is done, and the process is left as it is.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()
