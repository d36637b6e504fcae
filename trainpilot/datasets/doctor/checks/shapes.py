"""Shapes of pictures: extreme ones, and what bucketing crops away."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about

TITLE = "shapes that buckets take"
POINTS = 15.0
WHY = "What lies outside of the bucket is never seen: heads and feet are cut off first."
MOST_CROPPED = 0.12
LONGEST = 2.2  # longer side by shorter


def look(case: Case) -> Iterator[Finding]:
    of = len(case.whole)
    cropped = [
        (p.name, f"{p.placement.cropped_share:.0%} is cropped for {p.placement.bucket[0]}x{p.placement.bucket[1]}")
        for p in case.whole
        if p.placement and p.placement.cropped_share > MOST_CROPPED
    ]
    yield from about(
        cropped, of, "1 picture loses much to its bucket", "{} pictures lose more than an eighth to their buckets"
    )
    long = [
        (p.name, f"{p.facts.size[0]}x{p.facts.size[1]}")
        for p in case.whole
        if max(p.facts.size) > LONGEST * min(p.facts.size)
    ]
    yield from about(long, of, "1 picture is very long", "{} pictures are very long: crop them to the subject", "note")
