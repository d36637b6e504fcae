"""The trigger word: in every caption, first, once, and no word that the model knows already."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about
from trainpilot.datasets.doctor.words import EVERYDAY

TITLE = "the trigger word first in every caption"
POINTS = 25.0
WHY = (
    "The trigger is what calls the LoRA. Where it is missing, that picture's subject is learnt without it; the first "
    "words of a caption weigh most; a word the model knows already brings its old meaning along."
)


def look(case: Case) -> Iterator[Finding]:
    if not case.captioned:
        return
    if not case.triggers:
        fix = Fix("name it: trainpilot dataset check ... --trigger WORD; without one a style works, a subject hardly")
        level = "note" if case.question.purpose == "style" else "warning"
        yield Finding("no trigger word: captions do not begin with a common one", level, fix=fix)  # type: ignore[arg-type]
        return
    word, of = case.triggers[0], len(case.captioned)
    fix = Fix(f"put it first where it is missing: captions.trigger = {word!r} in the run, or in the files", "trigger",
              {"trigger": word})  # fmt: skip
    missing = [p for p in case.captioned if not positions(p.caption or "", word)]
    yield from about(
        [(p.caption_file or p.name, (p.caption or "")[:80]) for p in missing],
        of, f"1 caption lacks the trigger {word!r}", f"{{}} captions lack the trigger {word!r}", "warning", fix,
    )  # fmt: skip
    later = [p for p in case.captioned if p not in missing and positions(p.caption or "", word)[0] > 0]
    yield from about(
        [(p.caption_file or p.name, (p.caption or "")[:80]) for p in later],
        of, f"1 caption does not begin with {word!r}", f"{{}} captions do not begin with {word!r}", "warning", fix,
    )  # fmt: skip
    if word.casefold() in EVERYDAY:
        yield Finding(
            f"the trigger {word!r} is an everyday word; a made-up one (ohwx, zorp) has no old meaning", "note"
        )


def positions(caption: str, word: str) -> list[int]:
    """Where the word stands in a caption, letter case and longer words apart."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [match.start() for match in re.finditer(pattern, caption.lstrip(), re.IGNORECASE)]
