"""The noise that training adds to latents: plain, offset, multi-resolution, perturbed, and the path's end.

Pure functions of explicit generators, one for each sample, so that a draw depends on the run's seed, the step and
the sample's slot alone. Used by the trainer; `zero_terminal_snr` by the Stable Diffusion families.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from trainpilot.config.schema import Noise
from trainpilot.families.protocol import Levels
from trainpilot.randomness import stream


def generators(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each sample, from its `draw_seed`. On the CPU they draw the same on every machine."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def normal(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device | str) -> Tensor:
    """Standard normal float32 [B,*shape] on `device`, sample by sample from its own generator."""
    drawn = [torch.randn(tuple(shape), generator=g, device=g.device, dtype=torch.float32) for g in generators]
    return torch.stack(drawn).to(device, non_blocking=True)


def make_noise(x0: Tensor, generators: Sequence[torch.Generator], noise: Noise) -> Tensor:
    """The noise of the target, shaped like x0 [B,C,h,w]: normal, plus offset, plus multi-resolution noise.

    offset o: eps += o * N(0,1)[B,C,1,1]; adaptive a: o becomes max(0, o + a * |mean_hw x0|).
    """
    eps = normal(x0.shape[1:], generators, x0.device)
    if noise.offset or noise.offset_adaptive:
        means = x0.float().mean(dim=(2, 3), keepdim=True).abs()
        strength = (noise.offset + noise.offset_adaptive * means).clamp(min=0)
        eps = eps + strength * normal((x0.shape[1], 1, 1), generators, x0.device)
    if noise.multires_iterations:
        eps = _multires(eps, generators, noise)
    return eps


def _multires(eps: Tensor, generators: Sequence[torch.Generator], noise: Noise) -> Tensor:
    """Add enlarged noise of size dim / r^i times discount^i, r ~ U(2,4) at each level; divide by the batch's std.

    r decides shapes, so it is drawn on the host, from the seed of each generator, and nothing waits for the device.
    """
    samples = []
    for sample, generator in zip(eps.split(1), generators, strict=True):
        ratios = stream(generator.initial_seed(), "multires").uniform(2, 4, noise.multires_iterations)
        channels, height, width = sample.shape[1:]
        for level, ratio in enumerate(ratios):
            size = (max(1, int(height / ratio**level)), max(1, int(width / ratio**level)))
            coarse = normal((channels, *size), [generator], sample.device)
            coarse = functional.interpolate(coarse, size=(height, width), mode="bilinear")
            sample = sample + coarse * noise.multires_discount**level
            if 1 in size:
                break
        samples.append(sample)
    summed = torch.cat(samples)
    return summed / summed.std()


def perturb(eps: Tensor, generators: Sequence[torch.Generator], noise: Noise) -> Tensor:
    """Input perturbation: the noise that the model sees, eps + gamma * N(0,1). The target keeps eps.

    Draws from `generators` where `make_noise` left them.
    """
    if not noise.ip_gamma:
        return eps
    return eps + noise.ip_gamma * normal(eps.shape[1:], generators, eps.device)


def mix(x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
    """x_t = alpha * x0 + sigma * eps, in float32."""
    alpha, sigma = (share.view(-1, *[1] * (x0.dim() - 1)) for share in (levels.alpha, levels.sigma))
    return alpha * x0.float() + sigma * eps.float()


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas rescaled so that the last step is pure noise and the first keeps its level.

    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891, algorithm 1.
    """
    root = (1 - betas).cumprod(0).sqrt()
    first, last = root[0], root[-1]
    root = (root - last) * first / (first - last)
    cumulative = root**2
    alphas = torch.cat([cumulative[:1], cumulative[1:] / cumulative[:-1]])
    return 1 - alphas
