"""Captions longer than the text encoder reads, in its own tokens; and very short or very long ones, in words."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, about
from trainpilot.datasets.doctor.guides import WORDS

TITLE = "captions that fit the text encoder"
POINTS = 15.0
WHY = (
    "Tokens beyond what the encoder reads are cut off without a word; beyond 75 words a caption describes more than a "
    "prompt ever will, and a word or two describe too little."
)


def look(case: Case) -> Iterator[Finding]:
    of = len(case.captioned)
    for encoder in case.question.encoders:
        counts = {p.name: encoder.count(p.caption or "") for p in case.captioned}
        over = [
            (p.caption_file or p.name, f"{counts[p.name]} tokens")
            for p in case.captioned
            if counts[p.name] > encoder.limit
        ]
        tail = f"longer than the {encoder.limit} tokens that {encoder.name} ({encoder.kind}) reads"
        yield from about(over, of, f"1 caption is {tail}", f"{{}} captions are {tail}")
    words = {p.name: len((p.caption or "").split()) for p in case.captioned}
    short = [(p.caption_file or p.name, repr(p.caption)) for p in case.captioned if words[p.name] < WORDS[0]]
    yield from about(short, of, "1 caption has one or two words", "{} captions have one or two words", "note")
    long = [(p.caption_file or p.name, f"{words[p.name]} words") for p in case.captioned if words[p.name] > WORDS[1]]
    one = f"1 caption has more than {WORDS[1]} words"
    yield from about(long, of, one, f"{{}} captions have more than {WORDS[1]} words", "note")
