"""Caption files that are no text, or not UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "captions in UTF-8"
POINTS = 30.0
WHY = "Letters of another encoding turn into others when a program guesses wrong; a file that is no text is left out."


def look(case: Case) -> Iterator[Finding]:
    of = len(case.pictures)
    broken = [(p.caption_file, p.unreadable) for p in case.pictures if p.unreadable]
    yield from about(
        broken, of, "1 caption file is no text: its picture is left out", "{} caption files are no text", "error"
    )
    other = [(p.caption_file, f"read as {p.encoding}") for p in case.pictures if p.encoding]
    fix = Fix("write them as UTF-8; the originals go to the trash", "utf8")
    one = "1 caption file is not UTF-8"
    yield from about(other, of, one, "{} caption files are not UTF-8", "note", fix)
