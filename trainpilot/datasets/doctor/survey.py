"""Reading a dataset for the doctor: its layout, every picture once, every caption, and the copies among them.

Used by the verb and the job. One entrance, `examine`; the rest are its stages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainpilot.datasets import duplicates
from trainpilot.datasets.buckets import place
from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.doctor.case import Case, Picture, Question
from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.doctor.reading import read_all
from trainpilot.datasets.duplicates import Pair
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.layouts import Found, discover, printable
from trainpilot.datasets.nesting import settle
from trainpilot.errors import PilotError

COMMON = 0.6  # of the captions begin with a tag that is taken for the trigger
Tell = Callable[[str, int, int], None]


def examine(root: Path, question: Question, memo: Memo, tell: Tell | None = None) -> Case:
    """Read a dataset. tell(phase, done, of) is called now and then; what it raises ends the reading.

    Raises PilotError where the folder is missing or holds no dataset in any of the layouts.
    """
    root, remark = settle(root)
    layout = discover(root)
    facts = read_all([one.image for one in layout.images], memo, _phase(tell, "pictures"))
    pictures = [_picture(root, found, fact, question) for found, fact in zip(layout.images, facts, strict=True)]
    triggers, source = _triggers(question, pictures)
    case = Case(root, layout, pictures, question, [], source, triggers, [remark] if remark else [])
    case.copies = _copies(case, tell)
    return case


def _phase(tell: Tell | None, name: str) -> Callable[[int, int], None] | None:
    return (lambda done, of: tell(name, done, of)) if tell else None


def _picture(root: Path, found: Found, facts: Facts, question: Question) -> Picture:
    caption, encoding, unreadable, file = found.caption_text, "", "", ""
    if found.caption_path is not None and caption is None:
        file = relative(found.caption_path, root)
        try:
            caption, note = read_caption(found.caption_path)
            encoding = note.rpartition(" as ")[2] if note and note.startswith("is not UTF-8") else ""
        except PilotError as problem:
            unreadable = problem.given
    return Picture(
        relative(found.image, root),
        found,
        facts,
        caption.strip() if caption is not None else None,
        file,
        encoding,
        unreadable,
        None if facts.fault else place(facts.size, question.rules),
    )


def relative(path: Path, root: Path) -> str:
    """A file's name in the report: below the dataset, with / and nothing that moves a cursor."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())


def _triggers(question: Question, pictures: list[Picture]) -> tuple[tuple[str, ...], str]:
    """The trigger words, and whether they were given, found (most captions begin with the tag), or none."""
    if question.triggers:
        return question.triggers, "given"
    captions = [picture.caption for picture in pictures if picture.caption]
    firsts = Counter(caption.split("\n", 1)[0].split(",", 1)[0].strip().casefold() for caption in captions)
    tag, count = firsts.most_common(1)[0] if firsts else ("", 0)
    if len(captions) >= 3 and count >= COMMON * len(captions) and 0 < len(tag.split()) <= 3:
        return (tag,), "found"
    return (), "none"


def _copies(case: Case, tell: Tell | None) -> list[Pair]:
    """Copies among the pictures that are whole: equal files at once, others by what they show."""
    firsts: dict[str, int] = {}
    equal: list[Pair] = []
    apart: list[int] = []
    for index, picture in enumerate(case.whole):
        first = firsts.setdefault(picture.facts.sha256, index)
        if first == index:
            apart.append(index)
        else:
            equal.append(Pair(first, index, 1.0))
    if len(apart) < 2:
        return equal
    small = np.stack([case.whole[index].facts.picture for index in apart])

    def beat() -> None:
        if tell:
            tell("copies", 0, 0)

    near = [Pair(apart[p.first], apart[p.second], p.alike, p.mirrored) for p in duplicates.find(small, beat)]
    return sorted([*equal, *near])
