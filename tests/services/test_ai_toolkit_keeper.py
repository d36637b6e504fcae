"""AI Toolkit's keeper with processes that behave as its own do: pages, a worker, and a job in a session of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.services.stand_ins import free_port
from tests.services.supervised import ROOT

PAGES = """
import http.server, json, os, signal, sys
class Pages(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words): pass
    def do_GET(self):
        pid = int(open("job.pid").read())
        if self.path == "/api/jobs/7/stop":
            os.kill(pid, signal.SIGINT)
        body = json.dumps({"jobs": [{"id": 7, "name": "mine", "status": "running"}, {"id": 8, "status": "completed"}]})
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
"""
WORKER = """
import subprocess, sys, time
job = subprocess.Popen([sys.executable, "run.py", sys.argv[1]], start_new_session=True)
open("job.pid.new", "w").write(str(job.pid)); import os; os.replace("job.pid.new", "job.pid")
time.sleep(600 if sys.argv[2] == "stays" else 1)
raise SystemExit(9)
"""
JOB = """
import signal, sys, time
def stop(*_):
    if sys.argv[1] == "polite":
        time.sleep(0.5); open("saved", "w").write("yes"); raise SystemExit(0)
signal.signal(signal.SIGINT, stop)
open("deaf-or-not", "w").write("ready")
while True: time.sleep(0.1)
"""
KEEPER = """
import sys
from pathlib import Path
from controlpilot.services.ai_toolkit import Keeper
port, job, worker = sys.argv[1:]
pages = [sys.executable, "pages.py", port]
raise SystemExit(Keeper(Path("../.."), int(port), [[sys.executable, "worker.py", job, worker], pages]).run())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "src" / "ui"
    place.mkdir(parents=True)
    for name, text in (("pages", PAGES), ("worker", WORKER), ("run", JOB)):
        (place / f"{name}.py").write_text(text)
    return place


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def keep(folder: Path, job: str, worker: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KEEPER, str(free_port()), job, worker]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environ, text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("job", ["polite", "deaf"])
def test_its_jobs_are_asked_to_stop_and_nothing_of_it_stays(folder: Path, job: str) -> None:
    keeper = keep(folder, job, "stays")
    until((folder / "deaf-or-not").exists)
    time.sleep(0.5)  # its pages listen
    family = [
        *psutil.Process(keeper.pid).children(recursive=True),
        psutil.Process(int((folder / "job.pid").read_text())),
    ]
    assert len(family) >= 3
    begin = time.monotonic()
    keeper.send_signal(signal.SIGTERM)
    said, _ = keeper.communicate(timeout=20)
    took = time.monotonic() - begin
    assert keeper.returncode == 0 and took < 7, took
    assert "asked job mine to stop" in said
    assert (folder / "saved").exists() is (job == "polite")
    assert ("had not stopped" in said) is (job == "deaf")
    _, alive = psutil.wait_procs(family, timeout=2)
    assert alive == []


def test_a_part_that_ends_ends_the_service_with_its_code(folder: Path) -> None:
    keeper = keep(folder, "polite", "crashes")
    said, _ = keeper.communicate(timeout=30)
    assert keeper.returncode == 9 and "ended with 9" in said
    until(lambda: not psutil.pid_exists(int((folder / "job.pid").read_text())))
