"""Distributions of the noise level: a uniform draw mapped to a place on the path. Shared by all families."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainpilot.config.schema import Noise
from trainpilot.errors import PilotError


def place(u: Tensor, noise: Noise, tokens: int, auto: str) -> Tensor:
    """Uniform u [B] in 0..1 -> [B] in 0..1 (0 clean, 1 noise), as `noise.timesteps` says.

    tokens: of the image. auto: the family's distribution, used where the setting is still "auto".

    Normal draws are the inverse normal distribution of u, so every distribution takes the same one draw.
    sigmoid: sigmoid(k N). shift: s x / (1 + (s - 1) x) of that. flux_shift: e^mu / (e^mu + 1/x - 1) of that, mu by
    `flux_mu`. logit_normal: sigmoid(mean + std N), as in Stable Diffusion 3 (arXiv 2403.03206).
    """
    kind = auto if noise.timesteps == "auto" else noise.timesteps
    if kind == "uniform":
        return u
    normal = torch.special.ndtri(u.double())
    if kind == "logit_normal":
        return torch.sigmoid(noise.logit_mean + noise.logit_std * normal).float()
    x = torch.sigmoid(noise.sigmoid_scale * normal)
    if kind == "shift":
        x = noise.shift * x / (1 + (noise.shift - 1) * x)
    elif kind == "flux_shift":
        strength = math.exp(flux_mu(tokens))
        x = strength / (strength + 1 / x - 1)
    return x.float()


def bounds(noise: Noise, steps: int = 1000) -> tuple[int, int]:
    """(least, most) time step that is drawn; the most itself is not."""
    low, high = noise.min_timestep, min(noise.max_timestep, steps)
    if low >= high:
        raise PilotError("noise.min_timestep", low, f"below noise.max_timestep, which is {high}", "Widen the range.")
    return low, high


def flux_mu(tokens: int) -> float:
    """The shift's exponent: linear in the image's tokens, 0.5 at 256 and 1.15 at 4096."""
    return 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
