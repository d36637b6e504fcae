"""`borders`: bars of one colour at the edges are cut off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from PIL import Image
from pydantic import BaseModel, ConfigDict

from trainpilot.datasets.doctor.checks.borders import described
from trainpilot.datasets.mending import Step, Subject, repainted

HELP = "Cut off bars of one colour at the edges"
EXAMPLE = "borders"
SEAM, SEAM_SHARE = 2, 1 / 256  # px, and part of the side: cut beyond a bar, whose edge is smeared and roughly measured


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    for found in dataset.whole:
        bars = dataset.facts[found.image].bars
        if any(bars):
            yield Step(found.image, described(bars), partial(repainted, found.image, partial(_without, bars)))


def _without(bars: tuple[int, int, int, int], image: Image.Image) -> Image.Image:
    seam = SEAM + round(SEAM_SHARE * max(image.size))
    left, top, right, bottom = (size + seam if size else 0 for size in bars)
    return image.crop((left, top, image.width - right, image.height - bottom))
