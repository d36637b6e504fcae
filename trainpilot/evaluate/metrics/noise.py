"""Grain: high-frequency noise that neither the base nor the dataset has."""

from __future__ import annotations

import math

import numpy as np

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._pixels import Pixels, beyond

ABOUT = About(
    name="noise",
    label="Grain",
    says="Standard deviation of fine noise, in levels of 255, above what 95% of the base's and of the dataset's "
    "pictures have (Immerkaer 1996)",
    low="0: no more than usual",
    high="5: visible grain",
    better="lower",
    model="none: pixels",
    cost="none",
    cannot_tell="Grain from fine texture: fur, gravel and film grain in the dataset are taken for what they are only "
    "because the dataset is compared with.",
    digits=1,
)


def deviation(pixels: Pixels) -> float:
    """sqrt(pi/2) / 6 times the mean of |I * N|, N the difference of two Laplacians, which flat and sloping ground
    leave at zero. J. Immerkaer, Fast noise variance estimation, 1996."""
    grey = 255 * (pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32))
    rows = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = rows[:-2] - 2 * rows[1:-1] + rows[2:]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(both).mean())


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return beyond(ABOUT.name, deviation, pictures, bench)
