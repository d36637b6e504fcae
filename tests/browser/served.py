"""`controlpilot serve` as a person starts it: a panel, a worker and a courier, each a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.runs.atomic import read_json
from trainpilot.runs.job import Job
from trainpilot.runs.process import Identity
from trainpilot.runs.rundir import folders
from trainpilot.workspace import Workspace

PASSWORD = "a journey's password"
PATIENCE = 90.0  # seconds: two cores are shared with a browser and a training


@dataclass
class Served:
    """A panel that can be killed and started again at its address. home: a folder for what is not the workspace."""

    workspace: Workspace
    home: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    output: Path = field(init=False)

    def __post_init__(self) -> None:
        self.output = self.home / "panel.txt"
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port = held.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = os.environ | {
            "PILOT_WORKSPACE": str(self.workspace.root),
            "PILOT_SECRETS": str(self.home / "secrets"),
            "PILOT_RUN": str(self.home / "run"),
            "PILOT_LOCKS": str(self.home / "locks"),
            "PILOT_PASSWORD": PASSWORD,
        }
        with self.output.open("ab") as output:
            command = [sys.executable, "-m", "controlpilot", "serve", "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < end and self.process.poll() is None, self.output.read_text()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answered:
                return bool(answered.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """kill -9 of the panel alone: what it started goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        """Everything that it started, and what those started."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        for name in ("worker", "courier"):  # of a panel that was killed
            left = Identity.parse((read_json(self.workspace.jobs / f"{name}.json") or {}).get("process"))
            if left is not None and left.alive():
                left.signal(signal.SIGTERM)
        for folder in folders(self.workspace):
            job = Job.read(folder)
            if job is not None and job.process is not None and job.process.alive():
                job.process.signal(signal.SIGKILL)
