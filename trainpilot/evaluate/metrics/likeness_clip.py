"""Likeness to the dataset as CLIP sees it."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import likeness

ABOUT = About(
    name="likeness_clip",
    label="Likeness (CLIP)",
    says="How alike pictures of the likeness prompts are to the dataset, part by part, both ways: nothing strange in "
    "them, nothing missing",
    low="0: as the base paints the class",
    high="1: as the dataset's pictures are to one another; a copy has more",
    better="higher",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Whether a person would recognise the face; and a background that all training pictures share counts "
    "as likeness too.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return likeness("clip", pictures, bench)
