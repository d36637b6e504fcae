"""Files with the same content under several names."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, Place

TITLE = "no file twice"
POINTS = 40.0
WHY = "A picture that is there twice is learnt twice as hard: the LoRA begins to copy it."


def look(case: Case) -> Iterator[Finding]:
    same: dict[str, list[str]] = {}
    for picture in case.whole:
        same.setdefault(picture.facts.sha256, []).append(picture.name)
    groups = [names for names in same.values() if len(names) > 1]
    if groups:
        spare = [Place(name, f"the same as {names[0]}") for names in groups for name in names[1:]]
        title = f"{len(spare)} files are copies of others" if len(spare) > 1 else "1 file is a copy of another"
        fix = Fix("keep one of each; the others go to the trash, with their captions", "duplicates")
        yield Finding(title, "warning", spare, len(case.whole), fix, groups)
