"""Likeness to the dataset as CLIP sees it."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import likeness

ABOUT = About(
    name="likeness_clip",
    label="Likeness (CLIP)",
    says="How far the pictures of the likeness prompts are on the way from the base's pictures to the dataset's",
    low="0: as the base paints the class",
    high="1: as the dataset's pictures are on average",
    better="higher",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Whether a person would recognise the face; and a background that all training pictures share counts "
    "as likeness too.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return likeness("clip", pictures, bench)
