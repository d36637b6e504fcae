"""A stop in every phase: honoured at once, told truly, and without a trace in the final weights."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runner import PATIENCE, Runner
from tiny_runs import again, attempt, differing, final_tensors, make

from trainpilot.cli import main
from trainpilot.engine import checkpoints
from trainpilot.errors import ExitCode
from trainpilot.runs.requests import GAP, ask
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.state import StateFile
from trainpilot.runs.stop import StopFlag, StopRequested

PROMPTS = 'sampling.prompts=["zorp, red", "a table"]'
SETTINGS = ("training.steps=4", "sampling.every_steps=3", "sampling.steps=4", PROMPTS)


class Watched(StateFile):
    """A run's state.json; `act` is called with each state that the run reports, in the midst of its work."""

    def __init__(self, run: RunDir, act: Any) -> None:
        super().__init__(run.path / "state.json", run.attempt)
        self._act = act

    def write(self, phase: str, step: int = 0, *more: Any, **further: Any) -> None:
        super().write(phase, step, *more, **further)
        self._act(phase, step)


def new_pictures(folder: Path, count: int = 6) -> Path:
    """Pictures and captions that no cache knows yet."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng([number, *folder.as_posix().encode()]).integers(0, 256, (36, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zorp number {number} of {folder.parent.name}")
    return folder


def events(run: RunDir, kind: str) -> list[dict[str, Any]]:
    path = run.path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in found if event["kind"] == kind]


def stopped_at(run: RunDir, phase: str, step: int, kind: ExitCode) -> ExitCode:
    """One attempt that is asked to stop when it reports `step` of `phase`; gives its exit code."""
    stop, asked = StopFlag(), []

    def act(now: str, reached: int) -> None:
        if now == phase and reached >= step and not asked:
            asked.append((time.monotonic(), time.process_time()))
            stop.set(kind, "asked by the test")

    run.state = Watched(run, act)
    try:
        ending = attempt(run, stop)
        status, code = ending.status, ending.exit_code
    except StopRequested as request:  # before there was anything to save; the verbs record it
        run.finish("stopped", request.reason, request.kind)
        status, code = "stopped", request.exit_code
    assert asked, f"{phase} {step} was never reached"
    # The clock belongs to whatever else the machine does; the work is ours.
    assert time.process_time() - asked[0][1] < 2, f"{phase}: more than 2 s of work after the stop"
    assert time.monotonic() - asked[0][0] < 10
    assert status == "stopped"
    return code


def test_a_run_stopped_in_every_phase_ends_with_the_same_weights(tmp_path: Path) -> None:
    settings = (*SETTINGS, "sampling.evaluate_at_end=true")
    run = make("sd15", *settings, dataset=new_pictures(tmp_path / "2_new"))
    # (phase, step of it, updates that are kept); sample: the state after update 3 is told just before the pictures.
    course = [
        ("device", 0, 0),
        ("scan", 1, 0),
        ("captions", 0, 0),
        ("latents", 1, 0),
        ("load", 0, 0),
        ("train", 1, 1),
        ("train", 3, 3),
        ("verify", 0, 4),
        ("evaluate", 1, 4),
    ]
    for number, (phase, step, kept) in enumerate(course):
        kind = (ExitCode.STOPPED, ExitCode.PREEMPTED)[number % 2]
        run = again(run)
        assert stopped_at(run, phase, step, kind) == kind, phase
        job = run.job
        assert job is not None and (job.status, job.exit_code, job.attempts) == ("stopped", kind, number + 1), phase
        found = checkpoints.committed(run.checkpoints) if run.checkpoints.exists() else []
        assert [path.name for path in found[-1:]] == [checkpoints.folder_name(kept)] * (kept > 0), phase
        assert not run.report.joinpath("index.html").exists()
    # The pictures of step 3 were begun, and are painted when the run goes on from there.
    run = again(run)
    assert attempt(run).status == "done"
    whole = make("sd15", *settings, dataset=tmp_path / "2_new")
    assert attempt(whole).status == "done"
    assert differing(final_tensors(run), final_tensors(whole)) == []
    for path in whole.samples.iterdir():
        theirs, ours = Image.open(path), Image.open(run.samples / path.name)
        assert np.array_equal(np.asarray(theirs), np.asarray(ours)), path.name


def test_save_sample_and_stop_can_be_asked_of_a_live_run(tmp_path: Path) -> None:
    run = make(
        "sd15", "training.steps=12", "sampling.every_steps=100", "sampling.at_start=false", "sampling.steps=2", PROMPTS
    )
    wishes = {2: "save", 5: "sample", 8: "stop"}

    def act(phase: str, step: int) -> None:
        if phase == "train" and step in wishes:
            ask(run.path, wishes.pop(step))
            time.sleep(GAP)  # the run looks at the disk four times a second

    run.state = Watched(run, act)
    ending = attempt(run)
    assert (ending.status, ending.exit_code) == ("stopped", ExitCode.STOPPED) and "requests/stop" in ending.reason
    assert list(run.requests_folder.iterdir()) == []
    saved, sampled = events(run, "checkpoint"), events(run, "sample")
    assert [event["step"] for event in saved] == [3, 8] and [event["step"] for event in sampled] == [6, 6]
    assert all((run.samples / event["file"]).is_file() for event in sampled)
    run = again(run)
    assert attempt(run).status == "done"
    whole = make("sd15", "training.steps=12")
    assert attempt(whole).status == "done"
    # Neither the save nor the pictures nor the stop have left a trace.
    assert differing(final_tensors(run), final_tensors(whole)) == []


@pytest.mark.slow
def test_signals_end_a_training_process_with_its_last_step_saved(capsys: pytest.CaptureFixture[str]) -> None:
    steps = "training.steps=200"
    run = make("sd15", steps, "logging.every_steps=1")
    server = Runner()
    try:
        for number, code in ((signal.SIGTERM, ExitCode.PREEMPTED), (signal.SIGINT, ExitCode.STOPPED)):
            before = len(events(run, "step"))
            pid = server.start(run)
            deadline = time.monotonic() + PATIENCE
            while len(events(run, "step")) < before + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            asked = time.monotonic()
            os.kill(pid, number)
            assert server.wait() == code
            assert time.monotonic() - asked < 10
            job = run.job
            assert job is not None and (job.status, job.exit_code) == ("stopped", code)
            last = events(run, "step")[-1]["step"]
            assert checkpoints.committed(run.checkpoints)[-1].name == checkpoints.folder_name(last)
            assert checkpoints.load(run.checkpoints / checkpoints.folder_name(last)).step == last < 200
    finally:
        server.close()
    # What a person stopped is not continued by `run`, which a worker calls.
    assert main(["run", str(run.path)]) == ExitCode.STOPPED
    assert "stopped by a person" in capsys.readouterr().out
