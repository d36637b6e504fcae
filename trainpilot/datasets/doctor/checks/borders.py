"""Bars of one colour at the edges: letterboxes, frames, screenshots."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "pictures without borders"
POINTS = 20.0
WHY = "A bar that is in the pictures will be in what the LoRA makes."
LEAST = 0.015  # of the side
_SIDES = ("left", "top", "right", "bottom")


def look(case: Case) -> Iterator[Finding]:
    where = []
    for picture in case.whole:
        width, height = picture.facts.size
        lengths = (width, height, width, height)
        bars = [
            f"{size} px {side}"
            for side, size, length in zip(_SIDES, picture.facts.border, lengths, strict=True)
            if size >= max(2, LEAST * length)
        ]
        if bars:
            where.append((picture.name, ", ".join(bars)))
    fix = Fix("cut the bars off; the originals go to the trash", "borders")
    yield from about(where, len(case.whole), "1 picture has a border", "{} pictures have borders", "warning", fix)
