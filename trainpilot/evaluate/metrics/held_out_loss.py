"""Validation loss on held-out pictures. Its readings come from the weights, not from pictures: see `held_out.py`."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture

ABOUT = About(
    name="held_out_loss",
    label="Validation loss",
    says="Mean squared error of the prediction on held-out pictures, at five fixed noise levels with fixed noise",
    low="as low as the data allow",
    high="rising again: what is learned is the training pictures, not the subject",
    better="lower",
    model="the base itself",
    cost="a pass of the base a picture and noise level",
    cannot_tell="How pictures look. Differences between checkpoints are small; go by their intervals.",
    digits=4,
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    """Nothing: the evaluation asks `HeldOut.losses` for it, where held-out pictures are named."""
    return Measured([])
