"""One mark at one place of most pictures: a watermark, a logo, a date. A mark on a single picture is not looked for.

Edges that recur at the same place are what overlays are found by in collections (Dekel et al., CVPR 2017); no text is
recognised.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainpilot.datasets.doctor.case import Case, Picture
from trainpilot.datasets.doctor.findings import Finding, Place
from trainpilot.datasets.doctor.measures import MARKS

TITLE = "no recurring mark"
POINTS = 25.0
WHY = (
    "What is at the same place in every picture is learnt first of all. This may be a watermark, a logo, a date, or "
    "simply the same background: look at the place."
)
LEAST_PICTURES = 8
RECURS, RARE = 0.8, 0.35  # share of pictures with an edge in a cell of the mark; and in the others on average
LEAST_CELLS, MOST_CELLS = 12, 600  # of 4096, for either direction of edges


def look(case: Case) -> Iterator[Finding]:
    chosen = [picture for picture in case.whole if min(picture.facts.size) >= 2 * MARKS]
    chosen = _without_copies(case, chosen)
    if len(chosen) < LEAST_PICTURES:
        return
    share = np.mean([picture.facts.edges for picture in chosen], axis=0, dtype=np.float32)
    recurring = share.max(axis=0) >= RECURS
    count = int(recurring.sum())
    if not LEAST_CELLS <= count <= MOST_CELLS or float(share.mean()) > RARE:
        return
    rows, columns = np.nonzero(recurring)
    bearing = [p for p in chosen if p.facts.edges.max(axis=0)[recurring].mean() >= RECURS]
    where = _place(float(columns.mean()) / MARKS, float(rows.mean()) / MARKS)
    title = f"{len(bearing)} of {len(chosen)} pictures have the same mark {where}"
    yield Finding(title, "warning", [Place(p.name) for p in bearing], len(case.whole))


def _without_copies(case: Case, pictures: list[Picture]) -> list[Picture]:
    """Each picture once: copies share everything, not only a mark."""
    later = {pair.second for pair in case.copies}
    names = {case.whole[index].name for index in later}
    return [picture for picture in pictures if picture.name not in names]


def _place(across: float, down: float) -> str:
    middle = ["at the top", "in the middle", "at the bottom"][min(2, int(down * 3))]
    side = ["on the left", "", "on the right"][min(2, int(across * 3))]
    return f"{middle} {side}".strip()
