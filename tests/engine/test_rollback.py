"""A run that diverges: nothing of it is saved, one way back at a tenth of the rate, and then the truth.

The divergence is real. With AdamW a weight is multiplied by 1 - rate * decay at every step: at rate 10 and decay 2 that
is -19, so that the product of a LoRA's two factors grows 361-fold a step and something on the way overflows fp32 within
log(1e38) / log(361) = 15 steps; at a tenth of the rate it is -1 and nothing grows.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_runs import KillAt, Killed, again, attempt, differing, final_tensors, make

from trainpilot.engine import checkpoints
from trainpilot.errors import ExitCode, RunFailed
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag

WILD = (
    "optimizer.learning_rate=10",
    "optimizer.weight_decay=2",
    "schedule.name=constant",
    "training.steps=24",
    "training.batch_size=1",
    "saving.keep=0",
    "precision.save=fp32",
)


def said(run: RunDir, kind: str) -> list[str]:
    return [event["text"] for event in history(run.events.path) if event["kind"] == kind]


def all_finite(folder: Path) -> bool:
    return all(bool(t.isfinite().all()) for file in folder.rglob("*.safetensors") for t in load_file(file).values())


def test_one_way_back_at_a_tenth_of_the_rate_also_when_killed_after_it() -> None:
    settings = (*WILD, "saving.every_steps=3", "training.ema_decay=0.9")
    run = make("flux", *settings)
    assert attempt(run).status == "done"
    warnings = said(run, "warning")
    assert len(warnings) == 1
    assert "rolled back to step-000000" in warnings[0] and "rates times 0.1" in warnings[0]
    assert all_finite(run.path)

    # Every step is told once, the rates fall to a tenth where the run went back to, and stay there.
    steps = [event for event in history(run.events.path) if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 25))
    assert all(math.isfinite(event["loss"]) for event in steps)
    saved = [checkpoints.load(path) for path in checkpoints.committed(run.checkpoints)]
    assert saved[0].step == 3 and (saved[0].rollbacks, saved[0].rate_factor) == (0, 1.0)
    assert saved[-1].step == 24 and (saved[-1].rollbacks, saved[-1].rate_factor) == (1, 0.1)

    # A kill after the way back: the same bits.
    killed = make("flux", *settings)
    with pytest.raises(Killed):
        attempt(killed, KillAt(16))  # well beyond the way back
    killed = again(killed)
    assert attempt(killed).status == "done"
    assert differing(final_tensors(killed), final_tensors(run)) == []


def test_a_checkpoint_that_leads_to_the_damage_is_not_gone_back_to() -> None:
    """Saved at every step, the newest one is finite, and yet the very next loss is not: the same again at any rate."""
    settings = (*WILD, "saving.every_steps=1")
    run = make("flux", *settings)
    assert attempt(run).status == "done"
    passed, aside, back = said(run, "warning")
    went = int(back.partition("rolled back to step-")[2][:8])
    assert f"step-{went + 1:08d} was passed over" in passed
    assert f"bad-step-{went + 1:08d}" in aside and (run.checkpoints / f"bad-step-{went + 1:08d}").is_dir()
    assert "loss" in back and f"at step {went + 2}: " in back

    # A kill after the way back: the one set aside is not resumed from.
    killed = make("flux", *settings)
    with pytest.raises(Killed):
        attempt(killed, KillAt(went + 2 + 3))
    assert len(said(killed, "warning")) == 3
    killed = again(killed)
    assert attempt(killed).status == "done"
    assert differing(final_tensors(killed), final_tensors(run)) == []


class DamageAt(StopFlag):
    """Cuts the newest checkpoint short at the start of forward pass `batch`, from 0, of an attempt."""

    def __init__(self, folder: Path, batch: int) -> None:
        super().__init__()
        self.folder, self.left = folder, batch

    def __call__(self) -> bool:  # type: ignore[override]
        if self.left == 0:
            file = checkpoints.committed(self.folder)[-1] / "state.safetensors"
            file.write_bytes(file.read_bytes()[:-1])
        self.left -= 1
        return self.poll()


def test_the_way_back_leads_past_a_damaged_checkpoint() -> None:
    run = make("flux", *WILD, "saving.every_steps=2")
    assert attempt(run, DamageAt(run.checkpoints, 5)).status == "done"
    warnings = said(run, "warning")
    assert "step-00000004 was passed over" in warnings[0] or "step-00000006 was passed over" in warnings[0]
    assert "rolled back to step-0000000" in warnings[-1]
    # Loading looks at checksums and for numbers that are none; the damaged one is not among them any more.
    assert [checkpoints.load(path).step for path in checkpoints.committed(run.checkpoints)][-1] == 24


def test_without_a_checkpoint_the_way_back_leads_to_the_beginning() -> None:
    run = make("flux", *WILD)
    assert attempt(run).status == "done"
    (warning,) = said(run, "warning")
    assert "rolled back to the beginning" in warning
    # The same as a run that had a tenth of the rate from the first step on.
    calm = make("flux", *WILD, "optimizer.learning_rate=1")
    assert attempt(calm).status == "done"
    assert differing(final_tensors(run), final_tensors(calm)) == []


def test_a_second_time_the_run_fails_with_the_reason_and_keeps_the_good_ones() -> None:
    """At decay 10 a tenth of the rate still multiplies by -9."""
    run = make("flux", *WILD, "optimizer.weight_decay=10", "training.steps=40", "saving.every_steps=2")
    with pytest.raises(RunFailed, match=r"again after a rollback.*Lower optimizer\.learning_rate") as failed:
        attempt(run)
    assert failed.value.exit_code == ExitCode.FAILED == 3
    assert len(said(run, "warning")) == 1
    assert checkpoints.committed(run.checkpoints) and all_finite(run.checkpoints)
    assert not run.result.exists()


def test_weights_that_are_not_finite_are_not_saved_though_the_loss_was() -> None:
    """eps = 0: lora_A has no gradient at the first step, and Adam divides zero by zero after a finite loss."""
    run = make("flux", "optimizer.eps=0", "saving.every_steps=1", "training.steps=2")
    with pytest.raises(RunFailed, match="weights that are not finite at step 1, again after a rollback"):
        attempt(run)
    assert not run.checkpoints.exists()
    first = next(event for event in history(run.events.path) if event["kind"] == "step")
    assert math.isfinite(first["loss"]) and math.isfinite(first["grad_norm"])
