"""Diversity of shapes: all square, or every picture a bucket of its own."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, counted

TITLE = "shapes in moderate number"
POINTS = 5.0
WHY = (
    "A batch holds pictures of one bucket only: with as many buckets as pictures, batches are never full. Pictures of "
    "one shape alone make a LoRA that is weaker in others."
)
LEAST_PICTURES = 8


def look(case: Case) -> Iterator[Finding]:
    buckets = {p.placement.bucket for p in case.whole if p.placement}
    if len(case.whole) < LEAST_PICTURES:
        return
    if len(buckets) > len(case.whole) / 2:
        title = f"{len(buckets)} buckets for {counted(len(case.whole), 'picture')}: most batches will not be full"
        yield Finding(title, "warning")
    elif len(buckets) == 1:
        width, height = next(iter(buckets))
        yield Finding(f"all pictures have one shape: every one is trained at {width}x{height}", "note")
