"""Pictures with a base model and LoRA files at their strengths. Used by the verb `sample` and the job of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainpilot.config.prompts import Prompt
from trainpilot.engine.merging import merge
from trainpilot.engine.probe import Device
from trainpilot.engine.sampler import encode, sample
from trainpilot.errors import PilotError
from trainpilot.families.protocol import Family, Parts, TextOptions
from trainpilot.families.registry import adapter
from trainpilot.formats.load import read
from trainpilot.models.detect import Base


@dataclass(frozen=True)
class Painting:
    """What paints: a base model, LoRA files with strengths (they add up), a replacement VAE or none, the CLIP layer."""

    base: Base
    loras: tuple[tuple[Path, float], ...] = ()
    vae: Path | None = None
    clip_skip: int = 1


def paint(
    painting: Painting, prompts: Sequence[Prompt], device: Device, *, on_step: Callable[[int, int], None] | None = None
) -> Iterator[Image.Image]:
    """One picture after the other, in the order of the prompts. on_step(done, of): within a picture; may raise to stop.

    All prompts are encoded before the denoiser is loaded: FLUX.1's T5 and its transformer rarely fit together.
    """
    family = adapter(painting.base.family)
    options = TextOptions(clip_skip=painting.clip_skip)
    pairs = encode(family, _load(family, painting, device, "text"), prompts, options)
    parts = _load(family, painting, device, "denoiser", "vae")
    for prompt, (positive, negative) in zip(prompts, pairs, strict=True):
        yield sample(family, parts, prompt, positive, negative, dtype=device.dtype, on_step=on_step)


def named(loras: Sequence[tuple[Path, float]]) -> str:
    """The LoRA files and their strengths, for a picture's text."""
    return ", ".join(f"{path.name}:{strength:g}" for path, strength in loras)


def _load(family: Family, painting: Painting, device: Device, *wanted: str) -> Parts:
    parts = family.load(
        painting.base.path, frozenset(wanted), dtype=device.dtype, device=device.torch_device, vae=painting.vae
    )
    for path, strength in painting.loras:
        file = read(path)
        if file.family != painting.base.family:
            remedy = "Choose the base that it was made for."
            raise PilotError(path, f"a LoRA for {file.family}", painting.base.family, remedy)
        merge(family, parts, file.state, strength)
    return parts
