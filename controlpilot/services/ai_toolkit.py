"""Keeps AI Toolkit's two processes: `python -m controlpilot.services.ai_toolkit APP PORT`, in the folder of its pages.

Its own start script restarts what crashes forever, and its front server listens on every address; both parts are
supported on their own. Where one ends, so does the keeper, with its exit code: supervisord shows why. Its jobs are
sessions of their own that nobody else would stop: at the end they are asked to (they save and can be resumed), and
what still runs is killed, so that no GPU stays taken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

ASK = 0.7  # seconds for each question to its pages
JOBS_END = 3.5  # seconds for jobs to save after they were asked to stop
ENDS = 1.0  # seconds for its own processes, then they are killed; all within supervisord's seven


class Keeper:
    """Two children and the jobs that they detached. app: its folder, with src/ below; port: of its pages."""

    def __init__(self, app: Path, port: int, commands: Sequence[Sequence[str]]) -> None:
        self.app = app.resolve()
        self.port = port
        self.commands = commands
        self.ending: int | None = None

    def run(self) -> int:
        """Until a signal (0) or until one of the two ends (its code, at least 1)."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        children = [subprocess.Popen(command) for command in self.commands]
        code = 0
        while self.ending is None:
            gone = [child for child in children if child.poll() is not None]
            if gone:
                code = gone[0].returncode or 1
                print(f"ai-toolkit: {gone[0].args!r} ended with {gone[0].returncode}", flush=True)
                break
            time.sleep(0.1)
        self.stop_jobs()
        for child in children:
            if child.poll() is None:
                child.terminate()
        _, alive = psutil.wait_procs(self._processes(children), timeout=ENDS)
        for process in alive:
            print(f"ai-toolkit: killed process {process.pid}", flush=True)
            _kill(process)
        return code if self.ending is None else 0

    def stop_jobs(self) -> None:
        """Asks every running job to stop and gives them time to save."""
        try:
            said = self._ask("/api/jobs")
        except (OSError, ValueError) as error:
            print(f"ai-toolkit: its jobs could not be asked to stop: {error}", flush=True)
            said = {}
        jobs = said.get("jobs", []) if isinstance(said, dict) else []
        running = [job for job in jobs if isinstance(job, dict) and job.get("status") == "running"]
        for job in running:
            try:
                self._ask(f"/api/jobs/{job['id']}/stop")
                print(f"ai-toolkit: asked job {job.get('name', job['id'])} to stop", flush=True)
            except (OSError, ValueError, KeyError) as error:
                print(f"ai-toolkit: a job could not be asked to stop: {error}", flush=True)
        deadline = time.monotonic() + JOBS_END
        while running and self._jobs() and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in self._jobs():
            print(f"ai-toolkit: killed the job of process {process.pid}, which had not stopped", flush=True)
            _kill(process)

    def _jobs(self) -> list[psutil.Process]:
        """Processes of ours in a session of their own that run its run.py."""
        found = []
        script = str(self.app / "src" / "run.py")
        for process in psutil.process_iter(["cmdline", "uids"]):
            words = process.info["cmdline"] or []
            same = process.info["uids"] and process.info["uids"].real == os.getuid()
            if same and any(word == script or word == "run.py" for word in words[:3]) and self._here(process):
                found.append(process)
        return found

    def _here(self, process: psutil.Process) -> bool:
        try:
            return Path(process.cwd()).is_relative_to(self.app) or str(self.app) in " ".join(process.cmdline())
        except psutil.Error:
            return False

    def _processes(self, children: list[subprocess.Popen[bytes]]) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for child in children:
            try:
                process = psutil.Process(child.pid)
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    def _ask(self, path: str) -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ASK) as answer:
            return json.load(answer)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.ending = number


def commands(port: int) -> list[list[str]]:
    """Its worker and its pages, as its own scripts start them, but on loopback only."""
    return [
        ["node", "dist/cron/worker.js"],
        ["node", "node_modules/next/dist/bin/next", "start", "-H", "127.0.0.1", "-p", str(port)],
    ]


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: python -m controlpilot.services.ai_toolkit APP PORT", file=sys.stderr)
        return 2
    port = int(arguments[1])
    # The tables may be of another version, or not there yet where the program came with the image: upstream's own start
    # brings them up to date, too. It refuses what would lose data.
    tables = subprocess.run(
        ["node", "node_modules/prisma/build/index.js", "db", "push", "--skip-generate"], check=False
    )
    if tables.returncode:
        print("ai-toolkit: its tables could not be brought up to date; see the lines above", file=sys.stderr)
        return tables.returncode
    return Keeper(Path(arguments[0]), port, commands(port)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
