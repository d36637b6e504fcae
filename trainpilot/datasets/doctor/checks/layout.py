"""What the search for pictures and captions left out or found odd."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding

TITLE = "a layout that leaves nothing out"
POINTS = 5.0
WHY = "What lies outside of the layout is not trained, and nobody misses it until the LoRA is weak."


def look(case: Case) -> Iterator[Finding]:
    for remark in case.remarks:
        yield Finding(remark, "note")
    for note in case.layout.notes:
        lost = "left out" in note or "do not exist" in note or "without a picture" in note
        yield Finding(note, "warning" if lost else "note")
