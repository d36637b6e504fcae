"""Pictures that are too dark, too bright or without contrast all over."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about

TITLE = "well exposed pictures"
POINTS = 20.0
WHY = "Detail that is lost in black or white cannot be learnt, and its lack is learnt as a look."
DARK, BRIGHT, FLAT = 60, 190, 30  # tones of 255


def look(case: Case) -> Iterator[Finding]:
    of = len(case.whole)
    dark, bright, flat = [], [], []
    for picture in case.whole:
        first, low, middle, high, last = picture.facts.tones
        if last < DARK * 2 and high < DARK:
            dark.append((picture.name, f"95% of it is darker than {high} of 255"))
        elif first > BRIGHT - 40 and low > BRIGHT:
            bright.append((picture.name, f"95% of it is brighter than {low} of 255"))
        elif last - first < FLAT:
            flat.append((picture.name, f"all tones between {first} and {last}, around {middle} of 255"))
    yield from about(dark, of, "1 picture is too dark", "{} pictures are too dark")
    yield from about(bright, of, "1 picture is washed out", "{} pictures are washed out")
    yield from about(flat, of, "1 picture has hardly any contrast", "{} pictures have hardly any contrast")
