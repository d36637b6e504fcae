"""Pictures without a caption, or with an empty one."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "a caption for every picture"
POINTS = 30.0
WHY = (
    "Without a caption everything in a picture is learnt together: what is not named cannot be told apart from the "
    "subject, nor changed by a prompt."
)
_FIX = Fix("trainpilot caption writes captions; look at them afterwards")


def look(case: Case) -> Iterator[Finding]:
    of = len(case.pictures)
    missing = [(p.name, "") for p in case.pictures if p.caption is None and not p.unreadable]
    yield from about(missing, of, "1 picture has no caption", "{} pictures have no caption", "warning", _FIX)
    empty = [(p.caption_file or p.name, "") for p in case.pictures if p.caption == ""]
    yield from about(empty, of, "1 caption is empty", "{} captions are empty", "warning", _FIX)
