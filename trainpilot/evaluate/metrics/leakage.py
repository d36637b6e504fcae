"""Leakage: how much pictures change that have nothing to do with the subject."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import readings, seen

ABOUT = About(
    name="leakage",
    label="Leakage",
    says="Distance between the LoRA's and the base's picture of a control prompt from the same seed, as a share of the "
    "distance between two seeds of the base",
    low="0: untouched",
    high="1: as different as another seed",
    better="lower",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Whether the change is a bad one. Every LoRA moves a few details of every picture.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    embedder = bench.embedders.get("clip")

    def between_seeds() -> float:
        found = []
        for asked in bench.asked:
            same = [one for one in bench.painted_by_base("control") if one.prompt == asked.number]
            vectors = seen(embedder, same) if len(same) > 1 else np.empty((0, 0))
            found += [1 - float(a @ b) for a, b in combinations(vectors, 2)]
        return float(np.mean(found))

    usual = bench.once("distance of seeds", between_seeds)
    chosen = bench.of(pictures, "control")
    before = seen(embedder, [bench.base[one.prompt, one.seed] for one in chosen])
    distances = 1 - (seen(embedder, chosen) * before).sum(1)
    return readings(chosen, distances / max(usual, 1e-6))
