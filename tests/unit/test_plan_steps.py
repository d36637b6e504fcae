"""Steps are counted exactly: partial batches, accumulation that ends with an epoch, steps or epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.config.schema import Saving, Training
from trainpilot.datasets.table import Sample, Table
from trainpilot.errors import PilotError
from trainpilot.plan.steps import Length, checkpoints, kohya_steps, length, steps_per_epoch


def table(*buckets: int) -> Table:
    """A table with that many pictures in each of several buckets."""
    samples: list[Sample] = []
    for number, count in enumerate(buckets):
        size = (512 + 64 * number, 512)
        samples += [
            Sample(len(samples) + n, Path(f"{number}_{n}.png"), size, size, size, (0, 0), 0, 1, "")
            for n in range(count)
        ]
    return Table(samples)


@pytest.mark.parametrize(("buckets", "steps"), [((63,), 400), ((5, 5, 5, 5, 21, 22), 500)])
def test_63_images_at_batch_4_for_25_epochs(buckets: tuple[int, ...], steps: int) -> None:
    training = Training(epochs=25, batch_size=4)
    pictures = table(*buckets)
    assert pictures.images_per_epoch == 63
    assert length(training, pictures.batches_per_epoch(4)).steps == steps
    # 63 * 25 / 4 = 393.75
    assert kohya_steps(63, training, regularized=False) == 394


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_steps_agree_with_dealing_out_an_epoch(
    buckets: list[int], batch: int, accumulation: int, processes: int, epoch: int
) -> None:
    """Deal the epoch's real batches one by one to the processes, and count updates as a loop would."""
    pictures = table(*buckets)
    updates = waiting = 0
    for _ in pictures.batches(epoch, 0, batch):
        waiting += 1
        if waiting == accumulation * processes:
            updates, waiting = updates + 1, 0
    updates += waiting > 0
    assert steps_per_epoch(pictures.batches_per_epoch(batch), accumulation, processes) == updates


def test_steps_say_how_many_epochs_they_are() -> None:
    found = length(Training(steps=50), 20)
    assert found == Length(steps=50, epochs=2.5, steps_per_epoch=20)


def test_both_units_or_neither_are_refused() -> None:
    with pytest.raises(PilotError, match="one of the two"):
        length(Training(steps=1, epochs=1), 4)
    with pytest.raises(PilotError, match="one of the two"):
        length(Training(), 4)


@pytest.mark.parametrize(
    ("saving", "expected"),
    [
        (Saving(), [250]),
        (Saving(every_steps=100), [100, 200, 250]),
        (Saving(every_steps=125), [125, 250]),
        (Saving(every_epochs=2), [80, 160, 240, 250]),
        (Saving(every_steps=100, every_epochs=5), [100, 200, 250]),
        (Saving(every_steps=1000), [250]),
    ],
)
def test_checkpoints_end_with_the_last_step(saving: Saving, expected: list[int]) -> None:
    assert checkpoints(saving, Length(steps=250, epochs=6.25, steps_per_epoch=40)) == expected
