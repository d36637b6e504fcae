"""Transparent places, which are laid over white."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "opaque pictures"
POINTS = 5.0
WHY = (
    "Transparent places are trained as white: the LoRA then learns a white ground. Lay such pictures over varied "
    "backgrounds if that is not wanted."
)


def look(case: Case) -> Iterator[Finding]:
    where = [(p.name, f"{p.facts.see_through:.0%} transparent") for p in case.whole if p.facts.see_through > 0]
    fix = Fix("lay them over white for good; the originals go to the trash", "rgb")
    one = "1 picture is transparent in places"
    yield from about(where, len(case.whole), one, "{} pictures are transparent in places", "warning", fix)
