"""Pictures smaller than they are trained."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about
from trainpilot.datasets.doctor.guides import LEAST_SIDE

TITLE = "large enough pictures"
POINTS = 40.0
WHY = "Enlarging adds no detail: the LoRA learns softness and compression artefacts with the subject."
_SLIGHTLY = 1.1  # enlarged by less than this, nobody sees a difference


def look(case: Case) -> Iterator[Finding]:
    rules = case.question.rules
    least = min(LEAST_SIDE**2, rules.area)
    sizes = {p.name: f"{p.facts.size[0]}x{p.facts.size[1]}, enlarged by {p.enlarged:.2g}" for p in case.whole}
    tiny = [p for p in case.whole if p.facts.size[0] * p.facts.size[1] < least * 0.98 and p.enlarged > _SLIGHTLY]
    some = [p for p in case.whole if p not in tiny and p.enlarged > _SLIGHTLY]
    side = round(least**0.5)
    yield from about(
        [(p.name, sizes[p.name]) for p in tiny],
        len(case.whole),
        f"1 picture has fewer pixels than {side}x{side}",
        f"{{}} pictures have fewer pixels than {side}x{side}",
    )
    yield from about(
        [(p.name, sizes[p.name]) for p in some],
        len(case.whole),
        f"1 picture is enlarged for {case.question.model}",
        f"{{}} pictures are enlarged for {case.question.model}",
        "note",
    )
