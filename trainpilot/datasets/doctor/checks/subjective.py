"""Words of opinion, which no picture shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about
from trainpilot.datasets.doctor.words import OPINIONS

TITLE = "captions that say what is visible"
POINTS = 5.0
WHY = "Opinions (beautiful, amazing) mean something else in every picture: the model learns nothing from them."
_WORDS = re.compile(r"(?<!\w)(" + "|".join(OPINIONS) + r")(?!\w)", re.IGNORECASE)


def look(case: Case) -> Iterator[Finding]:
    where = [
        (p.caption_file or p.name, ", ".join(dict.fromkeys(word.casefold() for word in found)))
        for p in case.captioned
        if (found := _WORDS.findall(p.caption or ""))
    ]
    one = "1 caption has words of opinion"
    yield from about(where, len(case.captioned), one, "{} captions have words of opinion", "note")
