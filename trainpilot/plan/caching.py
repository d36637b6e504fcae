"""What is cached, how large that gets, and what has to be encoded while training. Used by the plan.

Sizes are those of the engine's entries: moments (mean and log-variance) in fp32, conditioning in the arithmetic's
format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainpilot.config.schema import RunConfig
from trainpilot.datasets import captions
from trainpilot.datasets.table import Table
from trainpilot.families.card import Card

MOMENT_BYTES = 4
# A safetensors header, the names in it, and the rest of the last file system block.
ENTRY_OVERHEAD = 512


@dataclass(frozen=True)
class CacheSize:
    """Entries and bytes of a full cache; 0 where nothing of the kind is cached."""

    latent_entries: int
    latent_bytes: int
    text_entries: int
    text_bytes: int

    @property
    def bytes(self) -> int:
        return self.latent_bytes + self.text_bytes


def dynamic_latent_reasons(config: RunConfig) -> list[str]:
    """Why pictures have to be encoded while training; empty where latents can be cached."""
    reasons = [] if config.cache.latents else ["cache.latents is off"]
    return reasons + [
        f"datasets.{number}.random_crop shows another part of the picture at every draw"
        for number, dataset in enumerate(config.datasets)
        if dataset.random_crop
    ]


def dynamic_text_reasons(config: RunConfig) -> list[str]:
    """Why captions have to be encoded while training; empty where text embeddings can be cached."""
    reasons = [] if config.cache.text else ["cache.text is off"]
    if config.text_encoder.train:
        reasons.append("text_encoder.train changes what reads the captions")
    for number, dataset in enumerate(config.datasets):
        reasons += [
            f"datasets.{number}.captions.{option} makes another caption at every draw"
            for option in captions.is_dynamic(dataset.captions)
        ]
    return reasons


def moments_bytes(width: int, height: int, channels: int, factor: int) -> int:
    """One picture's moments: 2 C h w numbers in fp32."""
    return 2 * channels * (width // factor) * (height // factor) * MOMENT_BYTES


def text_bytes(config: RunConfig, card: Card, number_bytes: int, widths: dict[str, int] | None = None) -> int:
    """One caption's conditioning. widths: true width by component, where a miniature differs from the card."""
    encoders = [(e["kind"], (widths or {}).get(e["component"], e["width"])) for e in card.text_encoders]
    wide = [width for kind, width in encoders if kind == "t5"]
    clip = [width for kind, width in encoders if kind == "clip"]
    if wide:
        # T5's states are the context; CLIP gives one pooled vector.
        numbers = config.text_encoder.t5_tokens * sum(wide) + sum(clip)
    else:
        # 75 tokens a chunk between one start and one end token; with two CLIPs the last also gives a pooled vector.
        numbers = (config.text_encoder.clip_tokens + 2) * sum(clip) + (clip[-1] if len(clip) > 1 else 0)
    return numbers * number_bytes


def distinct_captions(config: RunConfig, table: Table) -> set[str]:
    """Captions that are encoded once each: after their fixed operations, and the empty one where some are dropped."""
    found = {captions.fixed(s.caption, config.datasets[s.dataset].captions) for s in table.samples}
    rules = [dataset.captions for dataset in config.datasets]
    return found | {""} if any(r.dropout_rate > 0 or r.dropout_every_n_epochs > 0 for r in rules) else found


def cache_size(
    config: RunConfig,
    table: Table,
    card: Card,
    *,
    factor: int,
    channels: int,
    number_bytes: int,
    widths: dict[str, int] | None = None,
) -> CacheSize:
    """What the caches of a run hold when they are full. factor: px per latent side; channels: of a latent."""
    latents: list[int] = []
    if not dynamic_latent_reasons(config):
        for sample in table.samples:
            views = 2 if config.datasets[sample.dataset].flip else 1
            latents += [moments_bytes(*sample.bucket, channels, factor) + ENTRY_OVERHEAD] * views
    texts: Iterable[str] = () if dynamic_text_reasons(config) else distinct_captions(config, table)
    count = len(list(texts))
    each = text_bytes(config, card, number_bytes, widths) + ENTRY_OVERHEAD
    return CacheSize(len(latents), sum(latents), count, count * each)
