"""A run that is killed and resumed ends with the same bits as one that was never interrupted.

Every family and every optimizer appears with everything switched on that has a memory or draws at random. The kills
here are exceptions in this process (`Killed`); `tests/faults/test_kill_training.py` does it with kill -9.
"""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import KillAt, Killed, StopAfter, again, attempt, differing, final_tensors, make, trained

from trainpilot.engine import checkpoints
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir

EVERYTHING = (
    "text_encoder.train=true",
    "text_encoder.learning_rate=5e-4",
    "training.ema_decay=0.9",
    "training.gradient_accumulation=2",
    "network.dropout=0.2",
    "datasets.captions.shuffle=true",
    "datasets.captions.keep_tokens=1",
    "datasets.captions.dropout_rate=0.3",
    "datasets.flip=true",
    "datasets.random_crop=true",
    "schedule.name=cosine",
    "schedule.warmup_steps=2",
    "sampling.every_steps=2",
    "sampling.prompts=['zorp --w 16 --h 16']",
    "sampling.steps=1",
    "saving.every_steps=2",
    "saving.keep=2",
)

OPTIMIZERS = {
    "adamw": (),
    # Adapter tensors are far below the 4096 elements from which bitsandbytes keeps 8-bit states by itself.
    "adamw8bit": ("optimizer.args.min_8bit_size=16",),
    "lion": ("optimizer.beta2=0.99",),
    "lion8bit": ("optimizer.args.min_8bit_size=16", "optimizer.beta2=0.99"),
    "adafactor": (),
    "prodigy": ("optimizer.learning_rate=1", "text_encoder.learning_rate=1"),
    "adamw_schedulefree": (),
}

# The slowest family (SDXL) appears once; the full product is the same code over and over.
MATRIX = [
    ("sd15", "adamw"),
    ("sdxl", "adamw8bit"),
    ("flux", "lion"),
    ("sd15", "lion8bit"),
    ("flux", "adafactor"),
    ("sd15", "prodigy"),
    ("flux", "adamw_schedulefree"),
]


def killed(run: RunDir, batch: int) -> RunDir:
    """The run after an attempt that died at the start of forward pass `batch` of that attempt."""
    with pytest.raises(Killed):
        attempt(run, KillAt(batch))
    return again(run)


@pytest.mark.parametrize(("family", "optimizer"), MATRIX)
def test_a_killed_run_ends_with_the_same_bits(family: str, optimizer: str) -> None:
    settings = (*EVERYTHING, f"optimizer.name={optimizer}", *OPTIMIZERS[optimizer])
    straight = trained(family, *settings)
    assert any(name.startswith("average/") for name in straight)
    assert any(name.startswith("adapter/text_encoder:") for name in straight)

    # Two passes make a step, checkpoints come every second one: the first kill is within steps 3 to 4 (or between
    # their passes), and the stop leaves a checkpoint where there would be none.
    draws = random.Random(f"{family} {optimizer}")
    run = killed(make(family, *settings), draws.randrange(4, 8))
    assert [path.name for path in checkpoints.committed(run.checkpoints)] == ["step-00000002"]
    ending = attempt(run, StopAfter(draws.randrange(2, 6)))
    assert (ending.status, int(ending.exit_code)) == ("stopped", 4)
    run = again(run)
    assert attempt(run).status == "done"

    assert differing(final_tensors(run), straight) == []
    steps = [event["step"] for event in history(run.events.path) if event["kind"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("optimizer", ["adamw8bit", "lion8bit"])
def test_eight_bit_states_are_what_is_kept(optimizer: str) -> None:
    run = make("sd15", f"optimizer.name={optimizer}", *OPTIMIZERS[optimizer], "training.steps=1")
    attempt(run)
    state = load_file(checkpoints.committed(run.checkpoints)[-1] / "state.safetensors")
    moments = [t for name, t in state.items() if name.startswith("optimizer/") and t.dtype == torch.uint8]
    assert len(moments) >= sum(name.startswith("adapter/") for name in state)
    assert any(int(moment.max()) != int(moment.min()) for moment in moments)


def test_cached_data_resumes_as_exactly_as_data_made_anew() -> None:
    settings = ("saving.every_steps=1", "training.ema_decay=0.9", "network.dropout=0.2")
    straight = trained("sd15", *settings)
    run = make("sd15", *settings)
    for batch in (0, 1, 2, 0):  # before the first step, one step at a time, twice at the same one
        run = killed(run, batch)
    attempt(run)
    assert differing(final_tensors(run), straight) == []


def test_checkpoints_and_samples_in_between_change_nothing() -> None:
    bare = trained("flux", "network.dropout=0.2")
    busy = trained(
        "flux",
        "network.dropout=0.2",
        "saving.every_steps=1",
        "sampling.every_steps=1",
        "sampling.steps=1",
        "sampling.prompts=['zorp --w 16 --h 16']",
    )
    assert differing(bare, busy) == []


def test_another_seed_ends_elsewhere() -> None:
    """The comparison can tell two runs apart."""
    one, other = trained("flux", "training.steps=2"), trained("flux", "training.steps=2", "run.seed=8")
    different = differing(one, other)
    assert {name.split("/")[0] for name in different} == {"adapter", "result"}


def test_a_warm_start_is_no_resume() -> None:
    """`network.init_from` begins at step 0 with a fresh optimizer, from the file's weights."""
    first = make("sd15", "training.steps=2", "precision.save=fp32")
    attempt(first)
    warm = make("sd15", "training.steps=1", f"network.init_from={first.result}", "optimizer.learning_rate=0")
    attempt(warm)
    given = {n: t for n, t in final_tensors(first).items() if n.startswith("adapter/")}
    begun = {n: t for n, t in final_tensors(warm).items() if n.startswith("adapter/")}
    assert differing(begun, given) == []  # a rate of zero leaves what it began with
    assert checkpoints.committed(warm.checkpoints)[-1].name == "step-00000001"

    # Two steps, then two from the file: not where four steps lead, though the learning rate is constant.
    constant = ("schedule.name=constant", "precision.save=fp32")
    half = make("sd15", *constant, "training.steps=2")
    attempt(half)
    rest = trained("sd15", *constant, "training.steps=2", f"network.init_from={half.result}")
    assert differing(rest, trained("sd15", *constant, "training.steps=4")) != []
