"""Captions that say the same."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Place

TITLE = "captions of their own"
POINTS = 20.0
WHY = "Captions that do not differ tell the model nothing about how the pictures do."


def look(case: Case) -> Iterator[Finding]:
    same: dict[str, list[str]] = {}
    for picture in case.captioned:
        same.setdefault(" ".join((picture.caption or "").casefold().split()), []).append(picture.name)
    repeated = {text: names for text, names in same.items() if len(names) > 1}
    if repeated:
        where = [
            Place(name, f"{text[:60]!r}, {len(names)} times") for text, names in repeated.items() for name in names
        ]
        title = f"{len(where)} pictures share {len(repeated)} captions" if len(repeated) > 1 else (
            f"{len(where)} pictures have the same caption")  # fmt: skip
        yield Finding(title, "warning", where, len(case.pictures), groups=list(repeated.values()))
