"""Pictures from prompts, with the very prediction that training uses. Used by the trainer, `sample` and evaluation.

Every picture draws from a generator of its own, seeded by its prompt: sampling consumes no randomness of a run, and
the same prompt gives the same picture whatever was sampled before it.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from trainpilot.config.prompts import Prompt
from trainpilot.config.schema import Noise
from trainpilot.errors import PilotError
from trainpilot.families.card import card
from trainpilot.families.construction import class_of
from trainpilot.families.distributions import flux_mu
from trainpilot.families.protocol import Conditioning, Family, Levels, Parts, TextOptions
from trainpilot.families.samplers import SAMPLERS, samplers_of

log = logging.getLogger(__name__)
Pair = tuple[Conditioning, Conditioning | None]  # of the prompt, and of the negative prompt where it is used


def scheduler(family: str, parts: Parts, name: str, *, zero_terminal_snr: bool = False) -> Any:
    """A fresh diffusers scheduler for this base model. name: one of `samplers_of`, or auto for the family's.

    zero_terminal_snr: the base was trained on with rescaled betas, so sampling has to start at pure noise.
    """
    wanted = card(family).sampler if name == "auto" else name
    if wanted not in samplers_of(family):
        raise PilotError("sampling.sampler", wanted, f"auto, {', '.join(samplers_of(family))}", "Choose one of these.")
    chosen = SAMPLERS[wanted]
    given = dict(parts.scheduler_config)
    if zero_terminal_snr or given.get("rescale_betas_zero_snr"):
        given |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if chosen.flow:
        given["flow_shift"] = given.get("shift", 1.0)
    kind = class_of(f"diffusers.{chosen.scheduler}")
    known = inspect.signature(kind.__init__).parameters
    options = {key: value for key, value in (given | chosen.options).items() if key in known}
    return kind(**options)


def encode(family: Family, parts: Parts, prompts: Sequence[Prompt], options: TextOptions) -> list[Pair]:
    """The conditioning of every prompt, and of its negative prompt where guidance uses one."""
    with torch.no_grad(), _evaluating(*parts.text_encoders):
        return [
            (
                family.encode_text(parts, [prompt.text], options),
                family.encode_text(parts, [prompt.negative], options) if prompt.guidance > 1 else None,
            )
            for prompt in prompts
        ]


def sample(
    family: Family,
    parts: Parts,
    prompt: Prompt,
    positive: Conditioning,
    negative: Conditioning | None = None,
    *,
    sampler: str | None = None,
    dtype: torch.dtype = torch.float32,
    zero_terminal_snr: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """One picture. sampler: overrides the prompt's; dtype: of the arithmetic, latents stay float32.

    on_step(done, of) is called after every step of the sampler and may raise to stop. Modules that were in training
    mode are put back into it, however this ends.
    """
    return sample_batch(
        family,
        parts,
        [prompt],
        [(positive, negative)],
        sampler=sampler,
        dtype=dtype,
        zero_terminal_snr=zero_terminal_snr,
        on_step=on_step,
    )[0]


def sample_batch(
    family: Family,
    parts: Parts,
    prompts: Sequence[Prompt],
    pairs: Sequence[Pair],
    *,
    sampler: str | None = None,
    dtype: torch.dtype = torch.float32,
    zero_terminal_snr: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Image.Image]:
    """One picture for each prompt, in one forward pass a step; further as `sample`. Texts and seeds alone may differ.

    A picture is that of `sample` up to the rounding of larger matrix products. ValueError where prompts differ in
    more, or their conditionings in length.
    """
    denoiser, vae = parts.denoiser, parts.vae
    if denoiser is None or vae is None or any(prompt.seed is None for prompt in prompts):
        raise ValueError("sampling needs the denoiser, the VAE and prompts with seeds")
    if len({replace(prompt, text="", negative="", seed=0) for prompt in prompts}) != 1:
        raise ValueError("prompts of one batch agree in everything but their texts and seeds")
    positive = _together([pair[0] for pair in pairs])
    negatives = [pair[1] for pair in pairs if pair[1] is not None]
    negative = _together(negatives) if negatives else None
    with torch.no_grad(), _evaluating(denoiser, vae):
        way = scheduler(family.name, parts, sampler or prompts[0].sampler, zero_terminal_snr=zero_terminal_snr)
        device = positive["context"].device
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            latents = _walk(family, parts, prompts, positive, negative, way, on_step)
        pixels = family.decode_latents(parts, latents.to(next(vae.parameters()).device))
    for prompt, picture in zip(prompts, pixels, strict=True):
        if not bool(torch.isfinite(picture).all()):
            log.warning("the picture of %r has values that are no numbers; they are black", prompt.text)
    return [to_image(picture) for picture in pixels.nan_to_num(-1.0)]


def _together(conditionings: Sequence[Conditioning]) -> Conditioning:
    if len({tuple((key, value.shape[1:]) for key, value in one.items()) for one in conditionings}) != 1:
        raise ValueError("conditionings of one batch have the same length")
    return {key: torch.cat([one[key] for one in conditionings]) for key in conditionings[0]}


def _walk(
    family: Family,
    parts: Parts,
    prompts: Sequence[Prompt],
    positive: Conditioning,
    negative: Conditioning | None,
    way: Any,
    on_step: Callable[[int, int], None] | None,
) -> Tensor:
    """Normalised latents [B,C,h,w] of prompts that differ in text and seed alone."""
    about, prompt, count = card(family.name), prompts[0], len(prompts)
    device = positive["context"].device
    width, height = size_of(prompt, parts.latent_factor)
    generators = [torch.Generator("cpu").manual_seed(int(one.seed or 0)) for one in prompts]
    shape = (1, _channels(parts), height // parts.latent_factor, width // parts.latent_factor)
    _set_timesteps(way, prompt.steps, (shape[2] // 2) * (shape[3] // 2), device)
    latents = torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(device)
    latents = latents * float(getattr(way, "init_noise_sigma", 1.0))
    guided = prompt.guidance > 1
    if guided and negative is None:
        raise ValueError("guidance above 1 needs the conditioning of the negative prompt")
    if guided and not about.supports["cfg"]:
        log.warning("guidance %g on %s doubles the time; its own is --g", prompt.guidance, about.label)
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * count, dtype=torch.float32, device=device)
    noise = Noise(guidance=prompt.embedded_guidance)
    further = {"generator": generators} if "generator" in inspect.signature(way.step).parameters else {}
    for done, time in enumerate(way.timesteps, 1):
        seen = way.scale_model_input(latents, time) if hasattr(way, "scale_model_input") else latents
        told = _levels(parts, way, time, count)
        predicted = family.predict(parts, seen, told, positive, sizes, noise).float()
        if guided and negative is not None:
            without = family.predict(parts, seen, told, negative, sizes, noise).float()
            predicted = without + prompt.guidance * (predicted - without)
        latents = way.step(predicted, time, latents, return_dict=False, **further)[0]
        if on_step:
            on_step(done, len(way.timesteps))
    return latents


def _set_timesteps(way: Any, steps: int, tokens: int, device: torch.device) -> None:
    """FLUX.1 dev moves the steps towards noise, the further the more tokens the picture has."""
    shifted = {"mu": flux_mu(tokens)} if way.config.get("use_dynamic_shifting") else {}
    if type(way).__name__ == "FlowMatchEulerDiscreteScheduler":
        way.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, **shifted)
    else:
        way.set_timesteps(steps, device=device, **shifted)
    # otherwise the scheduler searches for its place, which waits for the device
    if hasattr(way, "set_begin_index"):
        way.set_begin_index(0)


def _levels(parts: Parts, way: Any, time: Tensor, count: int) -> Levels:
    """What the model is told at a step of the sampler, [count]."""
    if parts.prediction == "flow":
        sigma = (time.float() / 1000).expand(count)
        return Levels(time=sigma, alpha=1 - sigma, sigma=sigma)
    cumulative = way.alphas_cumprod.to(time.device)[time.long()].expand(count)
    return Levels(time=time.expand(count), alpha=cumulative.sqrt(), sigma=(1 - cumulative).sqrt())


def size_of(prompt: Prompt, latent_factor: int) -> tuple[int, int]:
    """(width, height) that the model can make: both rounded down to an even number of latents."""
    unit = 2 * latent_factor
    width, height = (max(unit, side // unit * unit) for side in (prompt.width, prompt.height))
    if (width, height) != (prompt.width, prompt.height):
        log.info("%dx%d becomes %dx%d: sides are multiples of %d", prompt.width, prompt.height, width, height, unit)
    return width, height


def _channels(parts: Parts) -> int:
    vae: Any = parts.vae
    return int(vae.config.latent_channels)


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each submodule is in the mode that it was in."""
    before = [(inner, inner.training) for module in modules for inner in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for inner, training in before:
            inner.training = training


def to_image(pixels: Tensor) -> Image.Image:
    """[3,H,W] in -1..1 -> a picture."""
    scaled = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(scaled.permute(1, 2, 0).cpu().numpy())


def save_png(image: Image.Image, path: Path, prompt: Prompt, sampler: str, **further: str) -> Path:
    """Write a picture with its prompt, seed and settings in the PNG's text; beside, synced, then renamed.

    `parameters` is the one line that A1111's and most galleries' readers show; further: more text entries.
    """
    given = {
        "prompt": prompt.text,
        "negative_prompt": prompt.negative,
        "seed": str(prompt.seed),
        "steps": str(prompt.steps),
        "guidance": f"{prompt.guidance:g}",
        "embedded_guidance": f"{prompt.embedded_guidance:g}",
        "sampler": sampler,
        **further,
    }
    line = f"Steps: {prompt.steps}, Sampler: {sampler}, CFG scale: {prompt.guidance:g}, Seed: {prompt.seed}"
    line += f", Size: {image.width}x{image.height}"
    negative = f"\nNegative prompt: {prompt.negative}" if prompt.negative else ""
    text = PngInfo()
    text.add_itxt("parameters", f"{prompt.text}{negative}\n{line}")
    for key, value in given.items():
        text.add_itxt(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        image.save(file, format="PNG", pnginfo=text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return path
