"""How much a picture looks like the character as a prompt asks for it: the measure behind the demo's main figure.

A picture is compared with drawings of the very zorp that the prompt names (colour, size, position, background), by
the edges alone: gradients of red, green and blue at two scales, where a drawing may be moved by up to three pixels and
be a tenth larger or smaller. The likeness is the cosine between the two gradient fields, 1 for the same picture up to
brightness and contrast, 0 for an empty one; outline, eyes, stripes, antennae and legs all count by the edges they have.

Why this is honest: nothing in it was trained, it has never seen a generated picture, and its drawings come from other
random numbers than the dataset's, with attributes that no training picture has together. A memorised picture has the
wrong colours and lies in the wrong place for most prompts, and edges that do not belong to the character cost as much
as missing ones. `tests/unit/test_likeness.py` holds it to that. Used by `benchmarks/demo_quality.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import zorp
from .scenes import SIDE

SCALES = (1.0, 2.0)
"""Standard deviations, in pixels, at which edges are looked at: features of two pixels, and the figure as a whole."""

MOVES = 3
"""How far a drawing may be moved, in pixels each way. A position's own jitter is 1.5."""

RADII = (0.9, 1.0, 1.1)
"""Sizes of the drawings, relative to the size that the prompt names."""

Field = NDArray[np.float32]


class _Middle(Random):
    """No jitter: the middle of every range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def _smoothers(deviation: float) -> tuple[Field, Field]:
    """Matrices [SIDE, SIDE] that smooth a line of pixels, and that give the smoothed line's derivative.

    Beyond the border a line goes on with its last pixel.
    """
    at = np.arange(SIDE)
    reach = int(4 * deviation + 1)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2)
    weights /= weights.sum()
    smooth, slope = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for offset, weight in zip(offsets, weights, strict=True):
        source = np.clip(at + offset, 0, SIDE - 1)
        np.add.at(smooth, (at, source), weight)
        np.add.at(slope, (at, source), weight * offset / deviation**2)
    return smooth.astype(np.float32), slope.astype(np.float32)


_SMOOTHERS = [_smoothers(scale) for scale in SCALES]


def field(picture: Image.Image) -> Field:
    """Gradients [scale, direction and channel (6), SIDE, SIDE]; each scale has unit length, or is zero if flat."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
    found = []
    for smooth, slope in _SMOOTHERS:
        both = np.concatenate([smooth @ pixels @ slope.T, slope @ pixels @ smooth.T])
        length = float(np.linalg.norm(both))
        found.append(both / length if length > 1e-3 else np.zeros_like(both))
    return np.stack(found)


def drawings(like: zorp.Zorp) -> list[Field]:
    """What `like` is compared with: its attributes without jitter, in three sizes."""
    plain = zorp.zorp(_Middle(0), like.colour, like.size, like.position, like.background)
    return [field(zorp.draw(replace(plain, radius=plain.radius * scale))) for scale in RADII]


def likeness(picture: Image.Image, like: zorp.Zorp) -> float:
    """-1 to 1: how much the picture looks like a zorp with the attributes of `like`."""
    seen = np.pad(field(picture), ((0, 0), (0, 0), (MOVES, MOVES), (MOVES, MOVES)))
    targets = np.stack([one.ravel() for one in drawings(like)])
    best = -1.0
    for down in range(2 * MOVES + 1):
        for right in range(2 * MOVES + 1):
            window = seen[:, :, down : down + SIDE, right : right + SIDE]
            best = max(best, float((targets @ window.ravel()).max()) / len(SCALES))
    return best


def normalised(scores: Sequence[float], base: Sequence[float], held_out: Sequence[float]) -> list[float]:
    """Scores on the scale where the mean of `base` is 0 and that of `held_out` drawings is 1."""
    zero, one = float(np.mean(base)), float(np.mean(held_out))
    return [(score - zero) / (one - zero) for score in scores]


def another(like: zorp.Zorp, number: int) -> zorp.Zorp:
    """A further drawing with the attributes of `like`, with jitter of its own."""
    return zorp.zorp(Random(f"another zorp {number}"), like.colour, like.size, like.position, like.background)


def separation(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Area under the ROC curve: how often a positive has the higher score, ties counted half (Mann-Whitney U)."""
    higher = sum((one > other) + 0.5 * (one == other) for one in positive for other in negative)
    return higher / (len(positive) * len(negative))
