"""CLIP text-image score: does the picture show what the prompt says? (Hessel et al., CLIPScore, 2021.)"""

from __future__ import annotations

import numpy as np

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import meant, readings, seen

ABOUT = About(
    name="clip_score",
    label="CLIP score",
    says="100 x the cosine between a picture and its prompt without the trigger, at least 0; all prompts with trigger",
    low="0: unrelated",
    high="about 35 for a picture that shows every word; compare with the base's, not with other prompts'",
    better="higher",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="Whether it is your subject: CLIP has never heard of the trigger. Counts, left and right, and text in "
    "a picture hardly move it.",
    digits=1,
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    embedder = bench.embedders.get("clip")
    chosen = bench.of(pictures)
    texts = meant(embedder, bench)[[picture.prompt for picture in chosen]]
    cosines = (seen(embedder, chosen) * texts).sum(1)
    return readings(chosen, 100 * np.maximum(cosines, 0))
