"""Burnt colours: the first sign of a rate that was too high or a strength that is."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._pixels import Pixels, beyond

ABOUT = About(
    name="saturation",
    label="Oversaturation",
    says="Mean chroma (the largest less the smallest of red, green and blue, in percent) above what 95% of the base's "
    "and of the dataset's pictures have",
    low="0: no more than usual",
    high="10: visibly burnt",
    better="lower",
    model="none: pixels",
    cost="none",
    cannot_tell="Whether strong colours were asked for: it compares with all of the protocol's prompts together.",
    digits=1,
)


def chroma(pixels: Pixels) -> float:
    """0 for grey, 100 where every pixel is a pure colour."""
    return 100 * float((pixels.max(2) - pixels.min(2)).mean())


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    return beyond(ABOUT.name, chroma, pictures, bench)
