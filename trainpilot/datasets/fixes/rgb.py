"""`rgb`: CMYK, 16-bit, transparent and animated pictures become plain 8-bit RGB, as training would see them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import BaseModel, ConfigDict

from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.mending import Step, Subject, repainted, unchanged

HELP = "Make CMYK, 16-bit, transparent and animated pictures plain RGB, as training would see them"
EXAMPLE = "rgb"


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    for found in dataset.whole:
        if why := _why(dataset.facts[found.image]):
            yield Step(found.image, why, partial(repainted, found.image, unchanged))


def _why(facts: Facts) -> str:
    if facts.mode in ("CMYK", "YCCK"):
        return "CMYK"
    if facts.mode.startswith(("I", "F")):
        return "16 bits a channel"
    if facts.frames > 1:
        return f"{facts.frames} frames"
    return "transparent" if facts.see_through > 0 else ""
