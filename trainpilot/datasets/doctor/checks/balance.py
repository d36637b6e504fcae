"""Concepts of very different weight: pictures times repeats of each folder."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, listed

TITLE = "balanced concepts"
POINTS = 10.0
WHY = "A concept that is seen several times as often as another is learnt before it, or instead of it."
MOST = 2.0


def look(case: Case) -> Iterator[Finding]:
    if len(case.concepts) < 2:
        return
    seen = {
        name or "(top)": sum(one.found.repeats for one in some if one.whole) for name, some in case.concepts.items()
    }
    most, least = max(seen.values()), min(seen.values())
    if least and most > MOST * least:
        told = listed([f"{name} {count}" for name, count in sorted(seen.items(), key=lambda item: -item[1])])
        fix = Fix("choose repeats that make them equal", command="balance")
        yield Finding(
            f"concepts are seen {most / least:.1f} times as often as others an epoch: {told}", "warning", fix=fix
        )
