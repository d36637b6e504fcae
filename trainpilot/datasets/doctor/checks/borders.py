"""Bars of one colour at the edges: letterboxes, frames, screenshots."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "pictures without borders"
POINTS = 20.0
WHY = "A bar that is in the pictures will be in what the LoRA makes."
_SIDES = ("left", "top", "right", "bottom")


def look(case: Case) -> Iterator[Finding]:
    where = [(p.name, told) for p in case.whole if (told := described(p.facts.bars))]
    fix = Fix("cut the bars off; the originals go to the trash", "borders")
    yield from about(where, len(case.whole), "1 picture has a border", "{} pictures have borders", "warning", fix)


def described(bars: tuple[int, int, int, int]) -> str:
    """Bars in words."""
    return ", ".join(f"{size} px {side}" for side, size in zip(_SIDES, bars, strict=True) if size)
