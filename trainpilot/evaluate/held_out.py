"""Validation loss: how well each checkpoint predicts the noise in pictures that it has not seen.

Noise levels and noise are fixed, the same for every checkpoint and every evaluation, so that what differs is the
weights: the loss of one training step moves with the level that it drew more than with learning. Used by evaluations
where a person names held-out pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainpilot.config.schema import Dataset, Noise
from trainpilot.datasets import captions
from trainpilot.datasets.table import Sample, build
from trainpilot.engine.encode import encode_images_now, read_pixels
from trainpilot.engine.noise import generators, mix, normal
from trainpilot.evaluate.album import Loras
from trainpilot.evaluate.easel import Brush, Easel, changes_text
from trainpilot.evaluate.interval import Reading
from trainpilot.families.protocol import Conditioning, Family, Parts
from trainpilot.families.registry import adapter
from trainpilot.randomness import draw_seed
from trainpilot.runs.rundir import RunDir

if TYPE_CHECKING:
    from trainpilot.evaluate.evaluation import Voice

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # places on the noise path, 1 is pure noise
DRAWS = 2  # of the noise at each
MOST = 32  # pictures
AT_ONCE = 4


@dataclass(frozen=True)
class HeldOut:
    """Pictures that the run was not trained on, with their captions."""

    easel: Easel
    samples: list[Sample]
    texts: list[str]

    @classmethod
    def prepare(cls, run: RunDir, easel: Easel, folder: Path) -> HeldOut:
        """The pictures of a folder, read as the run reads its own: captions, sizes. PilotError where there is none."""
        rules = run.config.datasets[0].captions
        config = run.config.model_copy(update={"datasets": [Dataset(path=str(folder.resolve()), captions=rules)]})
        samples = build(config, run.workspace).samples[:MOST]
        return cls(easel, samples, [captions.fixed(sample.caption, rules) for sample in samples])

    @torch.no_grad()
    def losses(self, wanted: Sequence[Loras], voice: Voice) -> list[list[Reading]]:
        """Mean squared error of the prediction, for each of `wanted`: by (picture and level, draw)."""
        family = adapter(self.easel.base.family)
        changing = [path for loras in wanted for path, _ in loras if changes_text(path, self.easel.base.family)]
        parts = self.easel.load(family, "text", "vae")
        latents = [self._latent(family, parts, sample) for sample in self.samples]
        plain = [self._text(family, parts, text) for text in self.texts]
        rest = self.easel.load(family, "denoiser")
        rest.text_encoders, rest.tokenizers = parts.text_encoders, parts.tokenizers
        rest.latent_shift, rest.latent_scale = parts.latent_shift, parts.latent_scale
        brush = Brush(family, rest)
        voice.phase("held-out loss", len(wanted))
        found = []
        for number, loras in enumerate(wanted):
            brush.take(loras)
            texts = [self._text(family, rest, text) for text in self.texts] if changing else plain
            readings = []
            for place, (sample, latent, text) in enumerate(zip(self.samples, latents, texts, strict=True)):
                voice.check()
                readings += self._readings(family, rest, place, sample, latent, text)
            found.append(readings)
            voice.count(number + 1, len(wanted))
        return found

    def _latent(self, family: Family, parts: Parts, sample: Sample) -> Tensor:
        """The mean of the VAE's distribution, normalised, [1,C,h,w] on the device."""
        moments = encode_images_now(family, parts, read_pixels(sample, sample.crop, False)[None])
        return (moments.chunk(2, dim=1)[0] - parts.latent_shift) * parts.latent_scale

    def _text(self, family: Family, parts: Parts, text: str) -> Conditioning:
        return family.encode_text(parts, [text], self.easel.text)

    def _readings(
        self, family: Family, parts: Parts, place: int, sample: Sample, latent: Tensor, text: Conditioning
    ) -> list[Reading]:
        device = self.easel.device
        keys = [(level, draw) for level in range(len(LEVELS)) for draw in range(DRAWS)]
        original, corner, target_size = sample.size_conditioning()
        noise = Noise(timesteps="uniform", zero_terminal_snr=self.easel.zero_terminal_snr)
        found = []
        for start in range(0, len(keys), AT_ONCE):
            part = keys[start : start + AT_ONCE]
            count = len(part)
            x0 = latent.float().expand(count, -1, -1, -1)
            u = torch.tensor([LEVELS[level] for level, _ in part], device=x0.device)
            levels = family.levels(parts, u, noise, (x0.shape[-2], x0.shape[-1]))
            seeds = [draw_seed(0, "held out", place, level, draw) for level, draw in part]
            eps = normal(x0.shape[1:], generators(seeds), x0.device)
            sizes = torch.tensor([[*original, *corner, *target_size]] * count, dtype=torch.float32, device=x0.device)
            conditioning = {key: value.expand(count, *value.shape[1:]) for key, value in text.items()}
            with torch.autocast(x0.device.type, dtype=device.dtype, enabled=device.dtype != torch.float32):
                predicted = family.predict(parts, mix(x0, eps, levels), levels, conditioning, sizes, noise)
            errors = (predicted.float() - family.target(parts, x0, eps, levels)).square().flatten(1).mean(1)
            found += [
                Reading(place * len(LEVELS) + level, draw, float(error))
                for (level, draw), error in zip(part, errors, strict=True)
            ]
        return found
