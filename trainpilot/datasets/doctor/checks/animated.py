"""Animated pictures, of which only the first frame is trained."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "still pictures"
POINTS = 5.0
WHY = "Only the first frame of an animation is trained, and that is often not the one that was meant."


def look(case: Case) -> Iterator[Finding]:
    where = [(p.name, f"{p.facts.frames} frames") for p in case.whole if p.facts.frames > 1]
    fix = Fix("keep the first frame as a PNG; the animation goes to the trash", "rgb")
    yield from about(where, len(case.whole), "1 picture is animated", "{} pictures are animated", "warning", fix)
