"""What the guides say of datasets, as numbers: how many pictures, how large, how long captions are.

Purposes are what a LoRA is of. Used by the checks and by `trainpilot dataset check --type`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guide:
    """fewest, most: pictures that the guides recommend; least: below it a LoRA of this kind is hardly worth making."""

    label: str
    fewest: int
    most: int
    least: int


PURPOSES = {
    "face": Guide("a face or a character", 15, 30, 10),
    "style": Guide("a style", 20, 50, 10),
    "object": Guide("an object", 10, 30, 5),
    "concept": Guide("a concept", 30, 100, 10),
}
ANY = Guide("any LoRA", 10, 100, 5)
LEAST_SIDE = 512  # px: of models that train at 512 or 1024; a quarter of the area of the latter
WORDS = (3, 75)  # of a caption; 10 to 75 is what the guide for descriptions recommends
STEPS_A_CONCEPT = 1000


def guide(purpose: str) -> Guide:
    """The guide for a purpose, or for any."""
    return PURPOSES.get(purpose, ANY)
