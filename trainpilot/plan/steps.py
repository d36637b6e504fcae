"""How many steps a run has, exactly. Used by the plan and by the trainer, so that both count alike.

A batch never mixes buckets and a bucket's last batch may be partial; accumulation flushes at an epoch's end; a step
is an optimizer update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainpilot.config.schema import Saving, Training
from trainpilot.errors import PilotError


@dataclass(frozen=True)
class Length:
    """steps of the run; epochs it reaches into (whole ones where epochs were configured); steps of one epoch."""

    steps: int
    epochs: float
    steps_per_epoch: int


def steps_per_epoch(batches: int, accumulation: int, processes: int = 1) -> int:
    """Optimizer updates of one epoch: the last one takes what is left."""
    return math.ceil(batches / (accumulation * processes))


def length(training: Training, batches: int, processes: int = 1) -> Length:
    """The length of a run of `batches` batches an epoch. Exactly one of steps and epochs is set."""
    if (training.steps is None) == (training.epochs is None):
        raise PilotError("training", "steps and epochs, or neither", "one of the two", "Set training.steps or .epochs.")
    each = steps_per_epoch(batches, training.gradient_accumulation, processes)
    if training.epochs is not None:
        return Length(training.epochs * each, float(training.epochs), each)
    assert training.steps is not None
    return Length(training.steps, training.steps / each, each)


def checkpoints(saving: Saving, length: Length) -> list[int]:
    """Steps after which a checkpoint is written; the last step always is one."""
    found = {length.steps}
    if saving.every_steps:
        found |= set(range(saving.every_steps, length.steps, saving.every_steps))
    if saving.every_epochs:
        every = saving.every_epochs * length.steps_per_epoch
        found |= set(range(every, length.steps, every))
    return sorted(found)


def kohya_steps(pictures: int, training: Training, regularized: bool) -> int:
    """What Kohya's interface would name for these epochs: it ignores buckets and their partial batches.

    ceil(pictures / batch / accumulation * epochs * (2 with regularisation pictures)).
    """
    factor = (training.epochs or 1) * (2 if regularized else 1)
    return math.ceil(pictures * factor / (training.batch_size * training.gradient_accumulation))
