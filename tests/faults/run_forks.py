"""Starts `trainpilot run FOLDER` many times without importing torch anew: a process that forks at every line it reads.

Each line of the input is a run folder; for each the process id is printed at once, then, when that process has ended,
its exit status (negative: the signal). The child does what the command does, from the beginning.
"""

from __future__ import annotations

import os
import sys

# What a run imports, so that a fork has it already.
import diffusers  # noqa: F401
import peft  # noqa: F401
import transformers  # noqa: F401

import trainpilot.engine.trainer  # noqa: F401
from trainpilot.cli import main


def fork(folder: str) -> None:
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
            code = main(["run", folder])
        finally:
            os._exit(code)
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        fork(line.strip())
