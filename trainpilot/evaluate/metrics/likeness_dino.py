"""Likeness to the dataset as DINOv2 sees it."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import likeness

ABOUT = About(
    name="likeness_dino",
    label="Likeness (DINOv2)",
    says="How alike pictures of the likeness prompts are to the dataset, part by part, both ways: nothing strange in "
    "them, nothing missing",
    low="0: as the base paints the class",
    high="1: as the dataset's pictures are to one another; a copy has more",
    better="higher",
    model="DINOv2",
    cost="a pass of the model a picture",
    cannot_tell="Whether the prompt was followed: it reads no words. Finer in shape and texture than CLIP, but a "
    "shared background counts here too.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return likeness("dino", pictures, bench)
