"""Memorisation: is a painted picture one of the training pictures? The nearest pair is always shown.

Two pictures are compared as 32x32 thumbnails of their luminance and colour, mean taken out and at unit length: the
cosine is 1 for a copy, whatever its size, brightness or contrast, and either way round. What counts as a copy follows
from the dataset: closer than its own pictures are to one another, and at least 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainpilot.evaluate.interval import Reading
from trainpilot.evaluate.metrics import About, Bench, Finding, Measured, Picture

SIDE = 32
LEAST, MOST = 0.90, 0.98  # bounds of what counts as a copy

ABOUT = About(
    name="memorisation",
    label="Nearest training picture",
    says="Likeness of a painted picture to the training picture nearest to it, as thumbnails, mirrored ones too",
    low="below 0.8: pictures of its own",
    high="0.9 and more: look at the pair, it may be a copy",
    better="lower",
    model="none: pixels",
    cost="none",
    cannot_tell="A copied face on a new background. Plain pictures (one thing on an empty ground) are alike without "
    "having been copied: that is why the pair is shown.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    chosen = bench.of(pictures)
    known, limit = bench.once("training thumbnails", lambda: _known(bench.dataset))
    fits = thumbnails([one.image for one in chosen]) @ known.T
    nearest = fits.argmax(1)
    found = [
        Finding(picture, bench.dataset[place // 2], float(row[place]), float(row[place]) >= limit)
        for picture, row, place in zip(chosen, fits, nearest, strict=True)
    ]
    readings = [Reading(one.picture.prompt, one.picture.seed, one.value) for one in found]
    return Measured(readings, sorted(found, key=lambda one: -one.value))


def _known(dataset: Sequence[Picture]) -> tuple[NDArray[np.float32], float]:
    """Thumbnails of the dataset, each followed by its mirror image, and the likeness from which a picture is a copy."""
    both = [image for one in dataset for image in (one.image, ImageOps.mirror(one.image))]
    known = thumbnails(both)
    return known, copy_limit(known)


def copy_limit(known: NDArray[np.float32]) -> float:
    """The 95th percentile of how near each training picture's nearest neighbour is, within LEAST..MOST.

    known: as `_known` makes it. A dataset of look-alikes asks for more before it says "copy".
    """
    fits = known[::2] @ known.T
    count = len(fits)
    for place in range(count):
        fits[place, 2 * place : 2 * place + 2] = -1
    own = float(np.quantile(fits.max(1), 0.95)) if count > 1 else LEAST
    return min(max(own, LEAST), MOST)


def thumbnails(images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """[n, 3 * SIDE^2] unit vectors; a picture of one colour is all zeros."""
    found = []
    for image in images:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        pixels = np.asarray(small, dtype=np.float32) / 255
        pixels = pixels - pixels.mean((0, 1))
        length = float(np.linalg.norm(pixels))
        found.append((pixels / length if length > 1e-3 else 0 * pixels).ravel())
    return np.stack(found)
