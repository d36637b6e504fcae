"""The same trigger words, in the same number, in all captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.checks.trigger import positions
from trainpilot.datasets.doctor.findings import Finding, about, listed

TITLE = "as many trigger words in every caption"
POINTS = 10.0
WHY = (
    "When the number of trigger words differs from caption to caption, shuffling and kept tokens cut at different "
    "places, and a second trigger (a costume, say) is tied to the first."
)


def look(case: Case) -> Iterator[Finding]:
    if not case.triggers or not case.captioned:
        return
    counts = {p.name: sum(len(positions(p.caption or "", word)) for word in case.triggers) for p in case.captioned}
    with_some = {name: count for name, count in counts.items() if count}
    if not with_some:
        return
    usual = Counter(with_some.values()).most_common(1)[0][0]
    where = [
        (p.caption_file or p.name, f"{counts[p.name]} instead of {usual}")
        for p in case.captioned
        if counts[p.name] and counts[p.name] != usual
    ]
    words = listed([repr(word) for word in case.triggers])
    many = f"{{}} captions have another number of trigger words ({words}) than the usual {usual}"
    yield from about(where, len(case.captioned), many.format(1).replace("captions have", "caption has"), many)
