"""What the demo's LoRA has learned, and what the base has forgotten over it.

Takes a finished demo run. Learned: 16 prompts of held-out zorps, each with a seed of its own, painted by the base alone
and with the LoRA; the likeness of `scripts/pilot_tiny/likeness.py` on a scale where the base's mean is 0 and further
held-out drawings are 1. Forgotten: 200 scenes without the trigger, painted by both from the same prompt and seed; the
share of attributes (shape, colour, position, background) that the pixels show right, by `measure.py` beside it.
The loss is base minus LoRA, in points; its upper bound is the upper end of the two-sided 95% interval of the paired
bootstrap (percentile, 10,000 resamples of the 200 pairs).

Beside them stands what would win a dishonest measure: how well the likeness tells zorps from scenes with the same
attributes (area under the ROC curve), and what painting one memorised training picture, the best of all or the best
for each prompt, would gain.

    python benchmarks/demo_quality.py workspace/outputs/RUN [--base MODEL] [--sheet FILE.png] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.config.prompts import Prompt, defaults_of
from trainpilot.engine import sampler
from trainpilot.engine.merging import merge
from trainpilot.families.protocol import Family, Parts, TextOptions
from trainpilot.families.registry import adapter
from trainpilot.formats.load import read
from trainpilot.runs.rundir import RunDir

# The character and the measures belong to the making of pilot-tiny, which is a folder of scripts and not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.pilot_tiny import demo_data, measure, scenes, zorp
from scripts.pilot_tiny.likeness import another, likeness, normalised, separation

SEEDS, SCENES = 16, 200
FIRST_SEED, FIRST_SCENE_SEED = 1000, 2000
BATCH = 20
RESAMPLES = 10_000
GAIN, BETTER, LOSS_POINTS = 0.3, 15, 5.0


@dataclass(frozen=True)
class Painter:
    """A base model with a LoRA merged into it, or without. made: what every prompt shares."""

    family: Family
    parts: Parts
    made: Prompt

    @classmethod
    def load(cls, run: RunDir, base: Path, lora: bool) -> Painter:
        """The base of a run, in fp32 on the CPU; lora: with the run's result at strength 1."""
        family = adapter(run.config.model.family)
        wanted = frozenset({"text", "denoiser", "vae"})
        parts = family.load(base, wanted, dtype=torch.float32, device="cpu")
        if lora:
            merge(family, parts, read(run.result).state)
        assert parts.denoiser is not None
        parts.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(family, parts, defaults_of(run.config))

    def paint(self, texts: Sequence[str], first_seed: int) -> list[Image.Image]:
        """One picture for each text; seeds count up."""
        prompts = [replace(self.made, text=text, seed=first_seed + number) for number, text in enumerate(texts)]
        pairs = sampler.encode(self.family, self.parts, prompts, TextOptions())
        found: list[Image.Image] = []
        for start in range(0, len(prompts), BATCH):
            part = slice(start, start + BATCH)
            found += sampler.sample_batch(self.family, self.parts, prompts[part], pairs[part])
        return found


def upper_bound(losses: Sequence[float], seed: int = 0) -> float:
    """Upper end of the two-sided 95% interval of the mean, by the percentile bootstrap over pairs."""
    values = np.asarray(losses, dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(1)
    return float(np.quantile(means, 0.975))


def same_attributes(like: zorp.Zorp) -> list[Image.Image]:
    """Scenes with the colour, size, position and background of a zorp, one of each shape: all of it but the zorp."""
    return [
        scenes.draw(
            scenes.Scene(
                (scenes.place(Random(f"{shape} {like}"), shape, like.colour, like.size, like.position),),
                like.background,
            )
        )
        for shape in scenes.SHAPES
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="What the demo's LoRA has learned, and what the base has forgotten.")
    parser.add_argument("run", type=Path, help="folder of a finished demo run")
    parser.add_argument("--base", type=Path, help="the base model (default: the run's)")
    parser.add_argument("--sheet", type=Path, help="also write the pictures as one PNG")
    parser.add_argument("--write", action="store_true", help="keep the result under benchmarks/results")
    given = parser.parse_args()
    run = RunDir.open(given.run)
    base = given.base or Path(run.config.model.base)

    wanted = demo_data.held_out(SEEDS)
    plain = measure.measured_scenes(SCENES, "demo quality")
    zorps: dict[str, list[Image.Image]] = {}
    others: dict[str, list[Image.Image]] = {}
    seconds: dict[str, float] = {}
    for name in ("base", "lora"):
        began = time.monotonic()
        painter = Painter.load(run, base, lora=name == "lora")
        zorps[name] = painter.paint([zorp.caption(one) for one in wanted], FIRST_SEED)
        others[name] = painter.paint([scenes.full_caption(one) for one in plain], FIRST_SCENE_SEED)
        seconds[name] = time.monotonic() - began
        print(f"{name}: {SEEDS + SCENES} pictures in {seconds[name]:.0f} s", flush=True)
    if given.sheet:
        sheet(zorps, others, given.sheet)

    scores = {
        name: [likeness(one, like) for one, like in zip(pictures, wanted, strict=True)]
        for name, pictures in zorps.items()
    }
    drawn = [likeness(zorp.draw(another(one, number)), one) for number, one in enumerate(wanted)]
    scale = (scores["base"], drawn)
    gains = normalised(scores["lora"], *scale)
    better = sum(one > other for one, other in zip(scores["lora"], scores["base"], strict=True))
    unlike = [likeness(picture, one) for one in wanted for picture in same_attributes(one)]
    copies = np.array([[likeness(zorp.draw(copy), like) for like in wanted] for copy in demo_data.trained()])
    memorised = max(float(np.mean(normalised(list(row), *scale))) for row in copies)
    nearest = float(np.mean(normalised(list(copies.max(0)), *scale)))

    right = {
        name: [measure.right(one, scene) for one, scene in zip(pictures, plain, strict=True)]
        for name, pictures in others.items()
    }
    shares = {name: [sum(one.values()) / len(one) for one in answers] for name, answers in right.items()}
    losses = [100 * (one - other) for one, other in zip(shares["base"], shares["lora"], strict=True)]

    rows: list[dict[str, object]] = [
        {"of": "likeness, mean", "base": float(np.mean(scores["base"])), "lora": float(np.mean(scores["lora"]))},
        {"of": "likeness, least", "base": min(scores["base"]), "lora": min(scores["lora"])},
        {"of": "normalised gain", "base": 0.0, "lora": float(np.mean(gains))},
    ]
    rows += [
        {"of": f"{name} right, %"} | {who: 100 * float(np.mean([a[name] for a in right[who]])) for who in right}
        for name in measure.ATTRIBUTES
    ]
    rows.append({"of": "all right, %"} | {who: 100 * float(np.mean(shares[who])) for who in shares})
    figures = [
        Figure("demo_zorps_known_from_scenes", separation(drawn, unlike), "auc", ">=", 0.99),
        Figure("demo_held_out_likeness", float(np.mean(drawn)), "cosine"),
        Figure("demo_one_memorised_picture_gain", memorised, "share", "<", GAIN),
        Figure("demo_best_copy_for_each_prompt_gain", nearest, "share", "<", GAIN),
        Figure("demo_base_attributes_right", 100 * float(np.mean(shares["base"])), "percent"),
        Figure("demo_attribute_loss", float(np.mean(losses)), "points"),
        Figure("demo_attribute_loss_upper95", upper_bound(losses), "points", "<=", LOSS_POINTS),
        Figure("demo_likeness_better", better, f"of_{SEEDS}", ">=", BETTER),
        Figure("demo_likeness_gain", float(np.mean(gains)), "share", ">=", GAIN),
    ]
    return finish(
        "demo_quality",
        figures,
        rows,
        out=RESULTS / "demo_quality_cpu.json" if given.write else None,
        load=os.getloadavg(),
        seconds=seconds,
        steps=run.config.training.steps,
        gains=[round(one, 4) for one in gains],
        bound="percentile bootstrap over pairs, two-sided 95%, upper end",
    )


def sheet(zorps: dict[str, list[Image.Image]], others: dict[str, list[Image.Image]], path: Path) -> None:
    """Pairs of rows, base above LoRA: the zorps, then the first scenes without the trigger."""
    columns, side = SEEDS, 2 * scenes.SIDE + 4
    lines = [zorps["base"], zorps["lora"], *(others[who][s : s + columns] for s in (0, columns) for who in others)]
    canvas = Image.new("RGB", (columns * side, len(lines) * side), (64, 64, 64))
    for row, line in enumerate(lines):
        for column, picture in enumerate(line):
            canvas.paste(picture.resize((side - 4,) * 2), (column * side + 2, row * side + 2))
    canvas.save(path)


if __name__ == "__main__":
    sys.exit(main())
