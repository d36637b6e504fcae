"""What stays the same about a subject (hair, eyes, skin), described in different ways."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Place, listed
from trainpilot.datasets.doctor.words import TRAITS

TITLE = "permanent traits described consistently"
POINTS = 10.0
WHY = (
    "The trigger should stand for what never changes about the subject. A trait that is named differently, or in some "
    "captions only, is split between the trigger and those words: leave it out everywhere, or name it alike everywhere."
)
LEAST, MOST = 2, 0.9  # captions that name a trait; share from which it is named everywhere


def look(case: Case) -> Iterator[Finding]:
    if case.question.purpose in ("style", "concept"):
        return  # there is no one subject
    for trait, (noun, values) in TRAITS.items():
        pattern = re.compile(rf"(?<!\w)({'|'.join(values)})[\w -]{{0,20}}?{noun}(?!\w)", re.IGNORECASE)
        found: dict[str, list[str]] = {}
        for picture in case.captioned:
            for value in {match.casefold() for match in pattern.findall(picture.caption or "")}:
                found.setdefault(values[value], []).append(picture.caption_file or picture.name)
        naming = {name for names in found.values() for name in names}
        if len(naming) < LEAST:
            continue
        told = listed([f"{value} in {len(names)}" for value, names in found.items()])
        where = [Place(name, value) for value, names in found.items() for name in names]
        if len(found) > 1:
            yield Finding(f"{trait} is described in {len(found)} ways: {told}", "warning", where, len(case.captioned))
        elif len(naming) < MOST * len(case.captioned):
            title = f"{trait} is named in {len(naming)} of {len(case.captioned)} captions only: {told}"
            yield Finding(title, "note", where, len(case.captioned))
