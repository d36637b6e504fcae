"""What artefact signs share: a value of each picture, and how far it lies outside what base and dataset show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainpilot.evaluate.metrics import Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import readings

Pixels = NDArray[np.float32]  # [H, W, 3] in 0..1


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.float32) / np.float32(255)


def beyond(name: str, value: Callable[[Pixels], float], pictures: list[Picture], bench: Bench) -> Measured:
    """How far each picture's value lies above all but the highest twentieth of the base's and the dataset's own."""

    def usual() -> float:
        tops = [
            float(np.quantile([value(pixels(one.image)) for one in group], 0.95))
            for group in (list(bench.base.values()), bench.dataset)
        ]
        return max(tops)

    limit = bench.once((name, "usual"), usual)
    return readings(pictures, [max(0.0, value(pixels(one.image)) - limit) for one in pictures])
