"""Pictures that show the same: cropped, resized, recompressed, mirrored, brighter or darker."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, Place
from trainpilot.datasets.duplicates import groups

TITLE = "no picture in several versions"
POINTS = 30.0
WHY = (
    "Versions of one picture count like one picture that is seen more often than the others, and make the dataset look "
    "more varied than it is."
)


def look(case: Case) -> Iterator[Finding]:
    pictures = case.whole
    near = [p for p in case.copies if pictures[p.first].facts.sha256 != pictures[p.second].facts.sha256]
    if not near:
        return
    by_second: dict[int, Place] = {}
    for pair in near:
        how = "mirrored, " if pair.mirrored else ""
        detail = f"like {pictures[pair.first].name} ({how}{pair.alike:.0%} alike)"
        by_second.setdefault(pair.second, Place(pictures[pair.second].name, detail))
    found = [[pictures[index].name for index in group] for group in groups(near)]
    count = len(by_second)
    title = f"{count} pictures are versions of others" if count > 1 else "1 picture is a version of another"
    fix = Fix("keep the largest of each; the others go to the trash, with their captions", "duplicates", {"near": True})
    yield Finding(title, "warning", list(by_second.values()), len(pictures), fix, found)
