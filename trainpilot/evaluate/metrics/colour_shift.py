"""Colour shift: a tint over pictures that have nothing to do with the subject."""

from __future__ import annotations

import numpy as np

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._pixels import pixels
from trainpilot.evaluate.metrics._vectors import readings

ABOUT = About(
    name="colour_shift",
    label="Colour shift",
    says="Distance between the mean colours of the LoRA's and the base's picture of a control prompt, same seed, in "
    "levels of 255",
    low="0: the same tint",
    high="20: visible in every picture",
    better="lower",
    model="none: pixels",
    cost="none",
    cannot_tell="A tint from a change of what is in the picture: look at the controls side by side.",
    digits=1,
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    chosen = bench.of(pictures, "control")
    shifts = [
        255
        * float(
            np.linalg.norm(pixels(one.image).mean((0, 1)) - pixels(bench.base[one.prompt, one.seed].image).mean((0, 1)))
        )
        for one in chosen
    ]
    return readings(chosen, shifts)
