"""kill -9, for real: of training runs at random moments and inside a save, and of saves alone hundreds of times."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from runner import PATIENCE, Runner
from tiny_runs import again, differing, final_tensors, make, trained

from trainpilot.engine import checkpoints
from trainpilot.engine.checkpoints import Snapshot

STEPS = 10
SETTINGS = (
    f"training.steps={STEPS}",
    "training.gradient_accumulation=2",
    "training.ema_decay=0.9",
    "text_encoder.train=true",
    "network.dropout=0.2",
    "datasets.captions.shuffle=true",
    "datasets.flip=true",
    "saving.every_steps=1",
    "saving.keep=2",
)


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other runs on this machine are not waited for."""
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))


@pytest.fixture
def runner(_own_locks: None) -> Iterator[Runner]:
    made = Runner()
    yield made
    made.close()


def _until(what: Callable[[], bool], pid: int) -> None:
    """Wait for a condition, or for the end of the process."""
    deadline = time.monotonic() + PATIENCE
    while not what() and Path(f"/proc/{pid}/task").is_dir() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _being_written(folder: Path) -> bool:
    return folder.is_dir() and any(path.name.startswith(".writing-") for path in folder.iterdir())


def _last_step(folder: Path) -> int:
    found = checkpoints.committed(folder) if folder.is_dir() else []
    return int(found[-1].name.removeprefix("step-")) if found else 0


def test_a_run_killed_again_and_again_ends_with_the_same_bits(runner: Runner) -> None:
    """Each attempt is killed some time after its first step, every other one inside a save."""
    draws = random.Random(20)
    straight = trained("sd15", *SETTINGS)
    run = make("sd15", *SETTINGS)
    folder, kills, inside, reached = run.checkpoints, 0, 0, 0
    while True:
        pid = runner.start(run)
        begun = _last_step(folder)
        if kills < 6:
            aim = kills % 2 == 0
            wanted = begun + draws.choice((0, 1, 1))
            _until(
                lambda wanted=wanted, aim=aim: _last_step(folder) >= wanted and (not aim or _being_written(folder)), pid
            )
            time.sleep(draws.random() * (0.005 if aim else 0.3))
            _kill(pid)
        status = runner.wait()
        inside += _being_written(folder)
        # Whatever the moment: all that is committed can be read, and nothing that was reached is lost.
        for path in checkpoints.committed(folder) if folder.is_dir() else []:
            assert checkpoints.load(path).step == int(path.name.removeprefix("step-"))
        assert _last_step(folder) >= reached
        reached = _last_step(folder)
        if status != -signal.SIGKILL:
            break
        kills += 1
    assert status == 0
    assert kills >= 4 and inside >= 1
    job = again(run).job
    assert job is not None and job.status == "done"
    assert differing(final_tensors(run), straight) == []


@pytest.mark.slow
def test_the_command_itself_is_killed_and_continued() -> None:
    """The same with `python -m trainpilot run`, once."""
    straight = trained("flux", "saving.every_steps=1")
    run = make("flux", "saving.every_steps=1")
    command = [sys.executable, "-m", "trainpilot", "run", str(run.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        _until(lambda: _last_step(run.checkpoints) >= 2 or process.poll() is not None, process.pid)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 2 <= _last_step(run.checkpoints) < 6
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    assert differing(final_tensors(run), straight) == []


# --- saves alone ------------------------------------------------------------------------------------------------------


def _numbered(step: int) -> Snapshot:
    """A state that tells its step in every tensor."""
    tensors = {f"denoiser:{name}:lora_A.weight": torch.full((64,), float(step)) for name in "abcd"}
    optimizer = {"state": {n: {"exp_avg": tensor / 2} for n, tensor in enumerate(tensors.values())}, "param_groups": []}
    return Snapshot(step, tensors, None, optimizer, {}, {}, 1.0, 0, {})


def _save_for_ever(folder: Path, first: int, told: int) -> None:
    """Save step after step and tell each one that `save` has returned from."""
    step = first
    while True:
        lora = bytes([step % 256]) * 4096
        checkpoints.save(
            folder, _numbered(step), lambda to, lora=lora: (to / "x.safetensors").write_bytes(lora), keep=2
        )
        os.write(told, step.to_bytes(8, "big"))
        step += 1


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where a sync costs nothing: what a killed process wrote stays, synced or not."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="kills-", dir=memory) as folder:
        yield Path(folder)


def test_of_two_hundred_kills_while_saving_none_costs_a_checkpoint(quick_disk: Path) -> None:
    draws = random.Random(200)
    folder = quick_disk / "checkpoints"
    began = time.monotonic()
    checkpoints.save(folder, _numbered(1), lambda to: None, keep=2)
    typical = time.monotonic() - began
    last, inside = 1, 0
    for _ in range(200):
        reading, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _save_for_ever(folder, last + 1, told)
            finally:
                os._exit(3)  # only a kill ends it otherwise
        os.close(told)
        # Half of the children are known to have saved once, however slowly they start; the others die at any time.
        first = os.read(reading, 8) if draws.random() < 0.5 else b""
        time.sleep(draws.random() * 2 * typical)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        with os.fdopen(reading, "rb") as pipe:
            returned = (first + pipe.read())[-8:]
        promised = int.from_bytes(returned, "big") if returned else last
        inside += any(path.name.startswith(".") for path in folder.iterdir())

        found = checkpoints.newest(folder)
        assert found is not None
        kept, _, notes = found
        assert notes == []
        # What `save` returned from is there; one more may be, where the kill came between the rename and the return.
        assert promised <= kept.step <= promised + 1
        expected = _numbered(kept.step)
        assert all(torch.equal(kept.adapter[name], tensor) for name, tensor in expected.adapter.items())
        assert all(
            torch.equal(kept.optimizer["state"][n]["exp_avg"], kept.adapter[m] / 2)
            for n, m in enumerate(expected.adapter)
        )
        last = kept.step
    assert last > 50  # the children did save
    assert inside > 50  # and many died in the middle of it
