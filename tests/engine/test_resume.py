"""A run that is killed and resumed ends with the same bits as one that was never interrupted.

Every family and every optimizer appears with everything switched on that has a memory or draws at random; `-m matrix`
runs all pairs of them.
"""

from __future__ import annotations

import pytest
import torch
from interruptions import FAMILIES, OPTIMIZERS, interrupted, killed
from safetensors.torch import load_file
from tiny_runs import attempt, differing, final_tensors, make, trained

from trainpilot.engine import checkpoints
from trainpilot.runs.events import history

# The slowest family (SDXL) appears once; the full product is the same code over and over.
SOME = {
    ("sd15", "adamw"),
    ("sdxl", "adamw8bit"),
    ("flux", "lion"),
    ("sd15", "lion8bit"),
    ("flux", "adafactor"),
    ("sd15", "prodigy"),
    ("flux", "adamw_schedulefree"),
}
MATRIX = [
    pytest.param(family, optimizer, marks=() if (family, optimizer) in SOME else pytest.mark.matrix)
    for family in FAMILIES
    for optimizer in OPTIMIZERS
]


@pytest.mark.parametrize(("family", "optimizer"), MATRIX)
def test_a_killed_run_ends_with_the_same_bits(family: str, optimizer: str) -> None:
    found = interrupted(family, optimizer)
    assert any(name.startswith("average/") for name in found.compared)
    assert any(name.startswith("adapter/text_encoder:") for name in found.compared)
    assert found.resumed_from[0] == "step-00000002"
    assert found.differing == []
    assert found.steps == [1, 2, 3, 4, 5, 6]


def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_gives_the_same_bits() -> None:
    settings = ("saving.every_steps=1", "training.ema_decay=0.9", "network.dropout=0.2")
    straight = trained("sd15", *settings)
    run = killed(make("sd15", *settings), 4)
    _, older, newest = checkpoints.committed(run.checkpoints)[-3:]
    file = newest / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the last bit of a weight: nothing but the checksum tells
    file.write_bytes(data)
    assert attempt(run).status == "done"
    texts = [event["text"] for event in history(run.events.path) if event["kind"] in ("warning", "notice")]
    [warning] = [text for text in texts if "passed over" in text]
    assert newest.name in warning and "state.safetensors" in warning and "checksum" in warning
    assert any(text.startswith(f"resumed from {older.name}") for text in texts)
    assert differing(final_tensors(run), straight) == []


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
