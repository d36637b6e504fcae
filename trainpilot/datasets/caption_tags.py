"""Looking at the captions of a whole dataset: how often each tag is there, and with which others, and what to prune.

Pure functions of texts. Used by the verb `captions` and the panel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from trainpilot.config.schema import Captions
from trainpilot.datasets import captions
from trainpilot.datasets.caption_edits._text import tags
from trainpilot.randomness import stream

ALWAYS = 0.6  # share of captions from which a tag is taken to describe the subject
_LONGEST_TAG = 6  # words; a longer part between commas is a sentence, which nobody prunes as a tag
_TRAIT = re.compile(r"\b(hair|eyes?|eyed|haired|skin|ears?|horns?|tail|wings|fangs?|freckles|mole|beard|bangs|braids?|"
                    r"ponytail|twintails|fur|scar|tattoo)\b")  # fmt: skip


@dataclass(frozen=True)
class TagCount:
    """One tag. captions: how many have it; share: of all captions; first: how many begin with it."""

    tag: str
    captions: int
    share: float
    first: int


@dataclass(frozen=True)
class Together:
    """Two tags that are in the same captions. captions: how many; share: of the captions that have the rarer one."""

    one: str
    other: str
    captions: int
    share: float


@dataclass(frozen=True)
class Suggestion:
    """A tag to look at in the pruning pass, and why."""

    tag: str
    captions: int
    share: float
    reason: str


def count(texts: Iterable[str]) -> list[TagCount]:
    """Tags by how many captions have them, the most frequent first. Upper and lower case are the same tag."""
    found, first, spelled, total = Counter[str](), Counter[str](), dict[str, str](), 0
    for every in _tags_of(texts):
        total += 1
        for tag in every:
            spelled.setdefault(tag.casefold(), tag)
        own = list(dict.fromkeys(tag.casefold() for tag in every))
        found.update(own)
        first.update(own[:1])
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [TagCount(spelled[tag], n, n / total, first[tag]) for tag, n in ordered]


def together(texts: Iterable[str], *, least: int = 2, most: int = 50, among: int = 400) -> list[Together]:
    """Pairs of tags by how many captions have both, among the `among` most frequent tags; at least `least` captions."""
    every = list(_tags_of(texts))
    counts = Counter(tag for own in every for tag in {one.casefold() for one in own})
    frequent = {tag for tag, _ in counts.most_common(among)}
    pairs = Counter(
        pair for own in every for pair in combinations(sorted({one.casefold() for one in own} & frequent), 2)
    )
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [
        Together(one, other, n, n / min(counts[one], counts[other])) for (one, other), n in ordered if n >= least
    ]  # fmt: skip


def suggest(texts: Mapping[str, str], trigger: str = "", *, always: float = ALWAYS) -> list[Suggestion]:
    """Tags that probably describe the subject: in most captions, or about a body. The trigger's own are left out.

    What is in every picture belongs to the trigger; a tag for it would be needed in every prompt. A person decides.
    """
    own = {tag.casefold() for tag in tags(trigger)}
    found = []
    for one in count(texts.values()):
        trait = _TRAIT.search(one.tag.casefold())
        if one.tag.casefold() in own or len(one.tag.split()) > _LONGEST_TAG or one.captions < 2:
            continue
        shown = f"in {one.captions} of {len(texts)} captions"
        if one.share >= always:
            kind = f", and names the subject's {trait[1]}" if trait else ""
            found.append(Suggestion(one.tag, one.captions, one.share, f"{shown}: probably the subject itself{kind}"))
        elif trait:
            reason = f"{shown}, and names a permanent trait ({trait[1]})"
            found.append(Suggestion(one.tag, one.captions, one.share, reason))
    return found


def draws(text: str, rules: Captions, *, seed: int, number: int, of: int = 4) -> list[str]:
    """What a run would see of one caption in `of` epochs, with these rules: a preview of shuffling and dropping.

    number: the caption's place in the dataset. A run draws by its own seed, so that its draws are others of the kind.
    """
    return [
        captions.apply(text, rules, _generator(seed, epoch, number), step=epoch, total_steps=of, epoch=epoch)
        for epoch in range(of)
    ]


def _generator(seed: int, epoch: int, number: int) -> np.random.Generator:
    return stream(seed, "caption", epoch, number)


def _tags_of(texts: Iterable[str]) -> Iterable[list[str]]:
    """The tags of each caption, all its lines taken together."""
    return (tags(text.replace("\n", ",")) for text in texts)
