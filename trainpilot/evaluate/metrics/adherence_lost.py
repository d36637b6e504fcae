"""What following prompts has cost: the base's CLIP score less the LoRA's, picture by picture from the same noise."""

from __future__ import annotations

from trainpilot.evaluate.metrics import About, Bench, Measured, Picture
from trainpilot.evaluate.metrics._vectors import meant, readings, seen

ABOUT = About(
    name="adherence_lost",
    label="Prompt adherence lost",
    says="CLIP score of the base's picture (without the trigger) less that of the LoRA's, same prompt and seed",
    low="0 or less: nothing lost",
    high="5 points: parts of the prompt are ignored",
    better="lower",
    model="CLIP",
    cost="a pass of the model a picture",
    cannot_tell="What was lost: place, style or count. A subject that CLIP finds odd for its class costs a little too.",
    digits=1,
)


def measure(pictures: list[Picture], bench: Bench) -> Measured:
    embedder = bench.embedders.get("clip")
    chosen = bench.of(pictures)
    texts = meant(embedder, bench)[[picture.prompt for picture in chosen]]
    ours = (seen(embedder, chosen) * texts).sum(1)
    theirs = (seen(embedder, [bench.base[one.prompt, one.seed] for one in chosen]) * texts).sum(1)
    return readings(chosen, 100 * (theirs - ours))
