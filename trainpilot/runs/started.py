"""A training command started in a terminal to be watched, and which run it makes. Used by `trainpilot watch`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console

from trainpilot.errors import PilotError
from trainpilot.runs.rundir import RunDir, folders
from trainpilot.workspace import Workspace

ANNOUNCED = "run folder: "  # how `trainpilot train` begins the line that names its run
_TAIL = 40  # lines shown of a command that made no run


class Started:
    """The child process; its output goes to a file in logs/, because the screen belongs to the dashboard.

    Ctrl+C reaches the child by itself, which saves and stops; SIGTERM is passed on. Neither ends the watching.
    """

    def __init__(self, command: Sequence[str], workspace: Workspace) -> None:
        workspace.logs.mkdir(parents=True, exist_ok=True)
        self.output = workspace.logs / f"started_{time.strftime('%Y%m%d-%H%M%S')}_output.txt"
        try:
            with self.output.open("xb") as file:
                self._child = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
                )
        except OSError as error:
            self.output.unlink(missing_ok=True)
            given = f"{command[0] if command else 'nothing'}: {error.strerror}"
            raise PilotError("watch --start", given, "a command", "Check its name.") from error

    def __enter__(self) -> Self:
        self._before = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._pass_on),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._child.send_signal(number)

    def going(self) -> bool:
        return self._child.poll() is None

    def run_folder(self) -> Path | None:
        """The run that the command has made, once it has; None where it ends without one."""
        while True:
            going = self.going()
            for line in self.output.read_text("utf-8", "replace").splitlines():
                if line.startswith(ANNOUNCED):
                    return Path(line.removeprefix(ANNOUNCED))
            if not going:
                return None
            time.sleep(0.1)

    def end(self, console: Console) -> int:
        """Wait for the command, show how it ended, and return its exit code."""
        code = self._child.wait()
        for line in self.output.read_text("utf-8", "replace").splitlines()[-_TAIL:]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"exit status {code}; the whole output is in {self.output}", markup=False, highlight=False)
        return code if code >= 0 else 128 - code


def newest(workspace: Workspace, given: str | None) -> Path:
    """The folder of the run named, else of the one that was made last. PilotError where there is none."""
    if given:
        return RunDir.find(workspace, given).path
    found = folders(workspace)
    if not found:
        raise PilotError(
            "watch", f"no run in {workspace.outputs}", "the name of a run", "Start one: `trainpilot train`."
        )
    return max(found, key=lambda path: (path / "run.toml").stat().st_mtime)
