"""Diversity: do different seeds still give different pictures?"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from trainpilot.evaluate.interval import Reading
from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import seen

ABOUT = About(
    name="diversity",
    label="Diversity",
    says="Mean distance between the pictures of one prompt, pair by pair over its seeds, as a share of the base's",
    low="0: every seed gives the same picture",
    high="1: as varied as the base",
    better="higher",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Good variety from bad: noise is varied too. A subject that always looks the same lowers it, as it "
    "should. Its spread is over prompts, because a prompt has one value.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    base = bench.once(
        "spread of the base", lambda: float(np.mean(list(_spread(bench.painted_by_base(), bench).values())))
    )
    ours = _spread(bench.of(pictures), bench)
    return Measured([Reading(prompt, None, value / max(base, 1e-6)) for prompt, value in ours.items()])


def _spread(pictures: list[Picture], bench: Bench) -> dict[int, float]:
    """Mean pairwise distance, 1 - cosine, by prompt."""
    embedder = bench.embedders.get("clip")
    found = {}
    for prompt in dict.fromkeys(one.prompt for one in pictures):
        vectors = seen(embedder, [one for one in pictures if one.prompt == prompt])
        found[prompt] = float(np.mean([1 - float(a @ b) for a, b in combinations(vectors, 2)]))
    return found
