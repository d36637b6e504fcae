"""Models and data for benchmarks: full-size denoisers with random weights, miniatures, batches as from a cache.

Used by train_step.py. Nothing is downloaded: a step's time does not depend on what the weights say, only that they are
real numbers (zeros would be treated specially by some kernels and draw less power).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainpilot.config.schema import RunConfig
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.batches import Batch
from trainpilot.families.card import card
from trainpilot.families.construction import build, build_on_meta, configs
from trainpilot.families.protocol import Conditioning, Levels, Parts
from trainpilot.families.registry import adapter as family_adapter
from trainpilot.randomness import draw_seed, stream

CLIP_TOKENS = 77
# Shapes of one photo album at about the same area: square, 3:4, 4:3, 9:16, 16:9.
ASPECTS = ((1.0, 1.0), (0.86, 1.15), (1.15, 0.86), (0.75, 1.33), (1.33, 0.75))


def full_parts(name: str, dtype: torch.dtype, device: torch.device, seed: int) -> Parts:
    """The denoiser of the released model's size with random weights, made on the device itself."""
    component = _denoiser(configs(name))
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            denoiser = build(component)
    finally:
        torch.set_default_dtype(before)
    return _parts(name, denoiser)


def tiny_parts(name: str, dtype: torch.dtype, device: torch.device, seed: int) -> Parts:
    """The family's miniature: the same code in a few megabytes."""
    family = family_adapter(name)
    with tempfile.TemporaryDirectory() as folder:
        path = family.tiny(Path(folder), seed)
        return family.load(path, frozenset({"denoiser"}), dtype=dtype, device=device)


def _parts(name: str, denoiser: nn.Module) -> Parts:
    about = card(name)
    return Parts(
        prediction=about.prediction,
        latent_shift=about.latent_shift,
        latent_scale=about.latent_scale,
        latent_factor=about.latent_factor,
        scheduler_config=configs(name)["scheduler"]["config"],
        denoiser=denoiser,
    )


def _denoiser(components: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return components["unet"] if "unet" in components else components["transformer"]


def inject(parts: Parts, config: RunConfig) -> Adapter:
    """The configured adapter in the denoiser, with random up weights: zeros would hide half of the backward pass."""
    about = card(config.model.family)
    assert parts.denoiser is not None
    adapter = Adapter.inject(
        {"denoiser": parts.denoiser}, {"denoiser": about.patterns(config.network.targets)}, config.network, 0
    )
    for place, (name, parameter) in enumerate(adapter.named_parameters()):
        if name.endswith("lora_B.weight") and parameter.device.type != "meta":
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(draw_seed(0, "up", place)))
            parameter.data.copy_(drawn * 0.01)
    return adapter


def conditioning(
    denoiser: Any, batch: int, tokens: int, dtype: torch.dtype, device: torch.device | str
) -> Conditioning:
    """Random text embeddings of the shapes this denoiser takes; tokens is the length of T5's part."""
    shape = denoiser.config
    if hasattr(shape, "joint_attention_dim"):
        sizes = {"context": (tokens, shape.joint_attention_dim), "pooled": (shape.pooled_projection_dim,)}
    else:
        sizes = {"context": (CLIP_TOKENS, shape.cross_attention_dim)}
        if shape.addition_embed_type == "text_time":
            pooled = shape.projection_class_embeddings_input_dim - 6 * shape.addition_time_embed_dim
            sizes["pooled"] = (pooled,)
    return {name: torch.randn(batch, *size, dtype=dtype, device=device) for name, size in sizes.items()}


def latent_channels(denoiser: Any) -> int:
    """Channels of the latents; a transformer over packed latents takes four times as many."""
    packed = hasattr(denoiser.config, "joint_attention_dim")
    return int(denoiser.config.in_channels) // (4 if packed else 1)


def sizes(resolution: int, step: int, mixed: bool) -> list[tuple[int, int]]:
    """(width, height) in pixels of the buckets: the square alone, or several aspect ratios of its area."""
    aspects = ASPECTS if mixed else ASPECTS[:1]
    return [(round(resolution * w / step) * step, round(resolution * h / step) * step) for w, h in aspects]


def batches(
    parts: Parts, count: int, buckets: list[tuple[int, int]], *, text_tokens: int, dtype: torch.dtype, pin: bool
) -> list[Batch]:
    """One batch of `count` cached samples for each bucket, in host memory as the reader hands them over."""
    made = []
    for place, (width, height) in enumerate(buckets):
        h, w = height // parts.latent_factor, width // parts.latent_factor
        torch.manual_seed(draw_seed(0, "benchmark batch", place))
        mean = torch.randn(count, latent_channels(parts.denoiser), h, w)
        batch = Batch(
            place=0,
            slots=list(range(count)),
            of=count,
            moments=torch.cat([mean, torch.full_like(mean, -10.0)], dim=1),
            pixels=None,
            conditioning=conditioning(parts.denoiser, count, text_tokens, dtype, "cpu"),
            captions=[""] * count,
            sizes=torch.tensor([[height, width, 0, 0, height, width]] * count, dtype=torch.float32),
            weights=torch.ones(count),
            masks=None,
            level_draws=torch.tensor([float(stream(0, "level", place, slot).random()) for slot in range(count)]),
            noise_seeds=[draw_seed(0, "noise", place, slot) for slot in range(count)],
            latent_seeds=[draw_seed(0, "latent", place, slot) for slot in range(count)],
        )
        made.append(pinned(batch) if pin else batch)
    return made


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory, from which copies to a GPU do not wait."""
    for name in ("moments", "sizes", "weights", "level_draws"):
        tensor: Tensor = getattr(batch, name)
        setattr(batch, name, tensor.pin_memory())
    batch.conditioning = {name: tensor.pin_memory() for name, tensor in (batch.conditioning or {}).items()}
    return batch


def step_flops(parts: Parts, config: RunConfig, count: int, bucket: tuple[int, int], text_tokens: int) -> float:
    """Floating-point operations of forward and backward without recomputation, counted on a copy without memory.

    Counted are matrix products, convolutions and attention, as multiply plus add; the backward pass goes through the
    activations and into the adapter's weights only, because the base is frozen.
    """
    given: Any = parts.denoiser
    shape = {key: value for key, value in given.config.items() if not key.startswith("_")}
    ghost_denoiser = build_on_meta({"class": f"diffusers.{type(given).__name__}", "config": shape})
    ghost = Parts(**(vars(parts) | {"denoiser": ghost_denoiser}))
    inject(ghost, config)
    width, height = bucket
    h, w = height // parts.latent_factor, width // parts.latent_factor
    x = torch.zeros(count, latent_channels(ghost.denoiser), h, w, device="meta")
    flow = parts.prediction == "flow"
    time = torch.zeros(count, device="meta", dtype=torch.float32 if flow else torch.int64)
    share = torch.zeros(count, device="meta")
    family = family_adapter(config.model.family)
    text = conditioning(ghost.denoiser, count, text_tokens, torch.float32, "meta")
    counter = FlopCounterMode(display=False)
    with counter:
        prediction = family.predict(
            ghost, x, Levels(time, share, share), text, torch.zeros(count, 6, device="meta"), config.noise
        )
        prediction.sum().backward()
    return float(counter.get_total_flops())
