"""Flexibility: how much of the base's way of following contexts, styles and compositions is left."""

from __future__ import annotations

import numpy as np

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import Vectors, meant, readings, seen
from trainpilot.evaluate.protocol import FLEXIBLE

ABOUT = About(
    name="flexibility",
    label="Flexibility",
    says="How much better a picture fits its own prompt than the protocol's other ones, as a share of what the base "
    "reaches; contexts, styles and compositions",
    low="0: every prompt gives the same kind of picture",
    high="1: prompts steer it as they steer the base",
    better="higher",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Whether the subject is in the picture at all: the base alone has 1.",
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    embedder = bench.embedders.get("clip")
    texts = meant(embedder, bench)
    others = [asked.number for asked in bench.asked if asked.group in FLEXIBLE]

    def margins(chosen: list[Picture]) -> Vectors:
        """Cosine with the own prompt less the mean over the others of the flexible groups, [n]."""
        fits = seen(embedder, chosen) @ texts.T
        own = fits[np.arange(len(chosen)), [one.prompt for one in chosen]]
        return own - (fits[:, others].sum(1) - own) / max(len(others) - 1, 1)

    reached = bench.once("margin of the base", lambda: float(margins(bench.painted_by_base(*FLEXIBLE)).mean()))
    chosen = bench.of(pictures, *FLEXIBLE)
    return readings(chosen, margins(chosen) / max(reached, 1e-6))
