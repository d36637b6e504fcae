"""Runs in processes of their own, for the tests that kill, signal and stop them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainpilot.runs.rundir import RunDir

PATIENCE = 600.0  # seconds until a process that does nothing fails the test; imports alone may take minutes


class Runner:
    """Starts a run in a process of its own and kills it at a chosen moment."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("run_forks.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, run: RunDir) -> int:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(f"{run.path}\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self) -> int:
        """The exit status of the last run started; negative for a signal."""
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(PATIENCE)
