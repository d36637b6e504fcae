"""One run in two processes on the CPU: one writer, the weights of one process, and a stop that both agree on.

The processes come from a fork server that has imported torch once, with the variables that `accelerate launch` sets;
the launcher itself is tried once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from tiny_runs import attempt, final_tensors, make
from torch import Tensor

from trainpilot.engine import checkpoints
from trainpilot.runs import events
from trainpilot.runs.requests import ask
from trainpilot.runs.rundir import RunDir

PATIENCE = 240  # seconds; the machine may be busy with other things
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["trainpilot.engine.trainer", "trainpilot.families.sd15.adapter"])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _variables(rank: int, port: int) -> dict[str, str]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in names.items()}


def _verb(words: list[str], variables: dict[str, str], output: str) -> None:
    """`trainpilot WORDS` in a process of the fork server."""
    screen = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(screen, 1)
    os.dup2(screen, 2)
    os.environ.update(variables)
    torch.set_num_threads(1)
    from trainpilot.cli import main

    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Pair:
    """Both processes of a verb; `ended` waits for their exit codes."""

    def __init__(self, verb: str, run: RunDir, locks: Path) -> None:
        port = _free_port()
        self.outputs = [run.path / f"screen-{rank}.txt" for rank in range(2)]
        self.each: list[BaseProcess] = []
        for rank, output in enumerate(self.outputs):
            variables = _variables(rank, port) | {"PILOT_LOCKS": str(locks), "CUDA_VISIBLE_DEVICES": ""}
            process = _processes.Process(target=_verb, args=([verb, str(run.path)], variables, str(output)))
            process.start()
            self.each.append(process)

    def signal(self, *ranks: int) -> None:
        for rank in ranks:
            os.kill(self.each[rank].pid or 0, signal.SIGTERM)

    def ended(self) -> list[int | None]:
        deadline = time.monotonic() + PATIENCE
        for process in self.each:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.each]
        for process in self.each:
            process.kill()
        return codes

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            screens = [path.read_text() for path in self.outputs if path.exists()]
            assert all(process.is_alive() for process in self.each), screens
            assert time.monotonic() < deadline, screens
            time.sleep(0.01)


def _told(run: RunDir, kind: str) -> list[dict[str, object]]:
    path = run.path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in found if event["kind"] == kind]


def _reached(run: RunDir) -> int:
    """The last step that the run has told of."""
    return max((int(str(event["step"])) for event in _told(run, "step")), default=0)


def _agree(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


SETTINGS = ("training.batch_size=1", "precision.mixed=fp32", "precision.save=fp32", "logging.every_steps=1")


@pytest.mark.slow
def test_two_processes_make_the_weights_of_one(tmp_path: Path) -> None:
    alone = make("sd15", *SETTINGS, "training.gradient_accumulation=2", "training.ema_decay=0.9")
    assert attempt(alone).status == "done"
    together = make("sd15", *SETTINGS, "training.gradient_accumulation=1", "training.ema_decay=0.9")
    launch = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    words = [*launch.split(), "--dynamo_backend", "no", "--main_process_port", str(_free_port())]
    command = [sys.executable, "-m", *words, "-m", "trainpilot", "run", str(together.path)]
    environment = os.environ | {"PILOT_LOCKS": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stdout
    job = together.job
    assert job is not None and (job.status, job.exit_code, job.attempts) == ("done", 0, 1)
    # One writer: every step once, one start, one end, one result.
    steps = [event["step"] for event in _told(together, "step")]
    assert steps == list(range(1, 7))
    assert len(_told(together, "start")) == len(_told(together, "end")) == 1
    # Two batches of one picture in a step, whoever makes them.
    told = [[float(str(event["loss"])) for event in _told(run, "step")] for run in (alone, together)]
    torch.testing.assert_close(torch.tensor(told[0]), torch.tensor(told[1]), rtol=1e-4, atol=1e-6)
    _agree(final_tensors(alone), final_tensors(together))


@pytest.mark.slow
def test_how_many_processes_a_launcher_starts(tmp_path: Path) -> None:
    """torchrun starts two on a CPU; accelerate's --cpu starts one, and that is said."""
    script = tmp_path / "who.py"
    script.write_text(
        "import os\n"
        "from trainpilot.engine.parallel import World, launched_alone\n"
        "world = World.join()\n"
        "print(f'[{world.rank} of {world.size}: {launched_alone(os.environ)}]\\n', end='', flush=True)\n"
        "world.leave()\n"
    )
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    told = []
    for words in (
        f"torch.distributed.run --nproc-per-node 2 --master-port {_free_port()}",
        "accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no",
    ):
        command = [sys.executable, "-m", *words.split(), str(script)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
        told.append(sorted(line for line in done.stdout.splitlines() if line.startswith("[")))
    assert told[0] == ["[0 of 2: None]", "[1 of 2: None]"]
    assert len(told[1]) == 1 and told[1][0].startswith("[0 of 1: one process trains")


@pytest.mark.slow
def test_a_stop_that_reaches_one_process_stops_both_at_the_same_step(tmp_path: Path) -> None:
    settings = (
        *SETTINGS,
        "training.steps=60",
        "sampling.every_steps=50",
        "sampling.steps=2",
        "sampling.at_start=false",
    )
    run = make("sd15", *settings)
    kinds = {(0, 1): 5, (1,): 5, (): 4}  # whom SIGTERM reaches (nobody: requests/stop) -> both exit codes
    for ranks, code in kinds.items():
        before = _reached(run)
        pair = Pair("run", run, tmp_path)
        pair.until(lambda before=before: _reached(run) > before)
        if ranks:
            pair.signal(*ranks)
        else:
            ask(run.path, "save")
            ask(run.path, "stop")
        asked = time.monotonic()
        assert pair.ended() == [code, code], [path.read_text() for path in pair.outputs]
        assert time.monotonic() - asked < 10
        job = run.job
        assert job is not None and (job.status, job.exit_code) == ("stopped", code)
        last = checkpoints.committed(run.checkpoints)[-1]
        assert last.name == checkpoints.folder_name(_reached(run))
    pair = Pair("resume", run, tmp_path)
    assert pair.ended() == [0, 0], [path.read_text() for path in pair.outputs]
    merged = events.history(run.path / "events.jsonl")
    assert [event["step"] for event in merged if event["kind"] == "step"] == list(range(1, 61))
    whole = make("sd15", *settings)
    pair = Pair("run", whole, tmp_path)
    assert pair.ended() == [0, 0], [path.read_text() for path in pair.outputs]
    _agree(final_tensors(run), final_tensors(whole))


@pytest.mark.slow
def test_a_stop_before_the_first_step_is_everybodys(tmp_path: Path) -> None:
    run = make("sd15", *SETTINGS)
    pair = Pair("run", run, tmp_path)
    # Only the writer looks for requests; it finds this one in the middle of its preparation.
    pair.until(lambda: (run.path / "state.json").exists())
    ask(run.path, "stop")
    assert pair.ended() == [4, 4], [path.read_text() for path in pair.outputs]
    assert not run.checkpoints.exists() or _reached(run) > 0
