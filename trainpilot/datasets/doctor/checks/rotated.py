"""Pictures that are upright only by their EXIF orientation."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "upright pictures"
POINTS = 2.0
WHY = (
    "TrainPilot turns them; many other trainers and caption programs do not, and would learn or describe them lying "
    "on their side."
)
_TURNS = {2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored, turned by 180 degrees", 5: "mirrored, turned",
          6: "turned to the right", 7: "mirrored, turned", 8: "turned to the left"}  # fmt: skip


def look(case: Case) -> Iterator[Finding]:
    where = [(p.name, _TURNS[p.facts.orientation]) for p in case.whole if p.facts.orientation > 1]
    fix = Fix("turn the pixels themselves; the originals go to the trash", "upright")
    one = "1 picture is upright only by its EXIF tag"
    yield from about(where, len(case.whole), one, "{} pictures are upright only by their EXIF tags", "warning", fix)
