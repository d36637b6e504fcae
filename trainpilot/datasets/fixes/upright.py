"""`upright`: pictures that are upright only by their EXIF tag get their pixels turned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import BaseModel, ConfigDict

from trainpilot.datasets.mending import Step, Subject, repainted, unchanged

HELP = "Turn the pixels of pictures that are upright only by their EXIF tag"
EXAMPLE = "upright"


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    for found in dataset.whole:
        if dataset.facts[found.image].orientation > 1:
            yield Step(found.image, "turned", partial(repainted, found.image, unchanged))
