"""Colours other than 8-bit RGB: CMYK prints, 16 bits a channel, palettes are fine."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "8-bit RGB colours"
POINTS = 5.0
WHY = (
    "Print colours are converted without their profile and may come out garish; 16 bits are reduced to 8. It is safer "
    "to convert such pictures with a program that shows them."
)
_FIX = Fix("convert them as training would; the originals go to the trash", "rgb")


def look(case: Case) -> Iterator[Finding]:
    printed = [(p.name, p.facts.mode) for p in case.whole if p.facts.mode in ("CMYK", "YCCK")]
    yield from about(printed, len(case.whole), "1 picture is CMYK", "{} pictures are CMYK", "warning", _FIX)
    deep = [(p.name, p.facts.mode) for p in case.whole if p.facts.mode.startswith(("I", "F"))]
    one = "1 picture has 16 bits a channel"
    yield from about(deep, len(case.whole), one, "{} pictures have 16 bits a channel", "note", _FIX)
