"""The worker and the courier beside a panel that no supervisord keeps company: started with `controlpilot serve`, and
stopped with it. One that runs already, started in a shell, is left alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from controlpilot.settings import Settings
from trainpilot.runs.atomic import read_json
from trainpilot.runs.process import Identity
from trainpilot.runs.secrets import without_tokens

GRACE = float(os.environ.get("PILOT_STOP_GRACE", "10"))  # seconds; the worker saves the running step in it
COMMANDS = {
    "worker": [sys.executable, "-m", "trainpilot", "worker"],
    "courier": [sys.executable, "-m", "controlpilot", "courier"],
}


class Companions:
    """tell: gets one line about each."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start those that nobody has started. Their output goes into logs/services of the workspace."""
        logs = self._settings.workspace.logs / "services"
        logs.mkdir(parents=True, exist_ok=True)
        for name, command in COMMANDS.items():
            told = read_json(self._settings.workspace.jobs / f"{name}.json") or {}
            other = Identity.parse(told.get("process"))
            if other is not None and other.alive():
                self._tell(f"the {name} runs already (process {other.pid}) and is left alone")
                continue
            log = logs / f"{'trainpilot' if name == 'worker' else name}.log"
            arguments = [*command, "--workspace", str(self._settings.workspace.root)]
            with log.open("ab") as output:
                # A group of its own: a Ctrl-C at the panel's terminal reaches it through stop(), once and in order.
                self._started[name] = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment(name),
                    start_new_session=True,
                )
            self._tell(f"the {name} runs (process {self._started[name].pid}); its output is in {log}")

    def stop(self) -> None:
        """SIGTERM to all at once, then wait for their ends; who takes longer than the grace is killed."""
        for process in self._started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for name, process in self._started.items():
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                why = f"did not end within {GRACE:g} s"
                self._tell(f"the {name} {why} and was killed; its run goes on from its last checkpoint")
        self._started.clear()

    def _environment(self, name: str) -> dict[str, str]:
        """Only the courier knows tokens: it is the one that speaks to the hosts they are for."""
        if name == "courier":
            # Its notifications link to this panel.
            told = {"PILOT_SECRETS": str(self._settings.secrets), "PILOT_PORT": str(self._settings.port)}
            return dict(os.environ) | told
        return without_tokens(os.environ)
