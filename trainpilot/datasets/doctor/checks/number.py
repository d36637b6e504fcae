"""How many pictures there are, against what the guides recommend."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, counted
from trainpilot.datasets.doctor.guides import guide

TITLE = "the right number of pictures"
POINTS = 20.0
WHY = "Too few pictures are learnt by heart; beyond a certain number, more of them add steps rather than quality."


def look(case: Case) -> Iterator[Finding]:
    wanted = guide(case.question.purpose)
    count = len(case.whole)
    have = counted(count, "picture")
    span = f"{wanted.fewest} to {wanted.most}"
    if count < wanted.least:
        yield Finding(f"{have}: far fewer than the {span} that are recommended for {wanted.label}", "warning")
    elif count < wanted.fewest:
        yield Finding(f"{have}: {span} are recommended for {wanted.label}", "note")
    elif count > wanted.most:
        yield Finding(f"{have}: {span} suffice for {wanted.label}; choose the best if training takes too long", "note")
