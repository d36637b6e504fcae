"""`trainpilot watch --start`: a real training under the dashboard, and Ctrl+C in its terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"
PATIENCE = 240.0  # seconds for each stage, on a machine that has much else to do
TRAINING = [
    *("--dataset", str(TEMPLATE / "datasets" / "images" / "10_zorp")),
    *("--base-model", str(TEMPLATE / "models" / "pilot-tiny")),
    *("--profile", "demo", "--name", "watched", "--set", "sampling.every_steps=0", "--set", "training.steps=5000"),
]


def test_ctrl_c_saves_and_stops_the_watched_run(tmp_path: Path) -> None:
    trainpilot = [sys.executable, "-m", "trainpilot"]
    command = [*trainpilot, "watch", "--workspace", str(tmp_path), "--start", *trainpilot, "train"]
    command += ["--workspace", str(tmp_path), *TRAINING]
    terminal, its_end = pty.openpty()
    watching = subprocess.Popen(command, stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True)
    os.close(its_end)
    events = tmp_path / "outputs" / "watched" / "events.jsonl"
    shown = bytearray()
    os.set_blocking(terminal, False)

    def read_screen() -> None:
        try:
            while part := os.read(terminal, 1 << 16):
                shown.extend(part)
        except OSError:  # nothing new, or the terminal's other side is closed
            return

    def until(found: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not found():
            read_screen()
            assert time.monotonic() < deadline, bytes(shown)
            time.sleep(0.2)

    try:
        until(lambda: watching.poll() is not None or (events.is_file() and '"kind": "step"' in events.read_text()))
        until(lambda: watching.poll() is not None or b"gradient" in shown)
        os.killpg(watching.pid, signal.SIGINT)  # what a terminal does on Ctrl+C: everybody in it is told
        until(lambda: watching.poll() is not None)
    finally:
        if watching.poll() is None:
            os.killpg(watching.pid, signal.SIGKILL)
    read_screen()
    os.close(terminal)
    job = json.loads((events.parent / "job.json").read_text())
    assert (watching.returncode, job["status"]) == (4, "stopped")
    assert list(events.parent.glob("checkpoints/step-*/COMMITTED"))
    text = shown.decode("utf-8", "replace")
    assert "watched" in text and "gradient" in text and "exit status 4" in text
