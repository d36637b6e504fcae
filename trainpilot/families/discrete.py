"""The discrete noise path of Stable Diffusion: 1000 steps, noise or v as target. Shared by sd15 and sdxl.

alpha_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), abar the cumulative product of 1 - beta.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trainpilot.config.schema import Loss, Noise
from trainpilot.engine.losses import snr_weights
from trainpilot.engine.noise import zero_terminal_snr
from trainpilot.errors import PilotError
from trainpilot.families.distributions import bounds, place
from trainpilot.families.protocol import Levels, Parts


def betas(scheduler: dict[str, Any], zero_terminal: bool) -> Tensor:
    """[T] float64 betas of a scheduler's configuration."""
    start, end = scheduler.get("beta_start", 0.0001), scheduler.get("beta_end", 0.02)
    steps, course = scheduler.get("num_train_timesteps", 1000), scheduler.get("beta_schedule", "linear")
    if course == "scaled_linear":
        made = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    elif course == "linear":
        made = torch.linspace(start, end, steps, dtype=torch.float64)
    else:
        raise PilotError("scheduler of the base model", course, "linear, scaled_linear", "Use another base model.")
    return zero_terminal_snr(made) if zero_terminal or scheduler.get("rescale_betas_zero_snr") else made


@lru_cache(maxsize=8)
def _table(
    start: float, end: float, course: str, steps: int, zero: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    config = {"beta_start": start, "beta_end": end, "beta_schedule": course, "num_train_timesteps": steps}
    # the last product of rescaled betas is a rounding away from zero, on either side
    cumulative = (1 - betas(config, zero)).cumprod(0).clamp(0, 1)
    return cumulative.sqrt().float().to(device), (1 - cumulative).sqrt().float().to(device)


def table(scheduler: dict[str, Any], zero_terminal: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """(alpha, sigma), each [T] float32 on `device`; computed once, so that a step copies nothing to the device."""
    return _table(
        scheduler.get("beta_start", 0.0001),
        scheduler.get("beta_end", 0.02),
        scheduler.get("beta_schedule", "linear"),
        scheduler.get("num_train_timesteps", 1000),
        bool(zero_terminal or scheduler.get("rescale_betas_zero_snr")),
        device,
    )


def levels(parts: Parts, u: Tensor, noise: Noise, latent_size: tuple[int, int]) -> Levels:
    """Uniform draws u [B] -> integer time steps in min..max by the configured distribution."""
    tokens = (latent_size[0] // 2) * (latent_size[1] // 2)
    alpha, sigma = table(parts.scheduler_config, noise.zero_terminal_snr, u.device)
    low, high = bounds(noise, len(alpha))
    time = (low + place(u, noise, tokens, "uniform") * (high - low)).long().clamp(low, high - 1)
    return Levels(time=time, alpha=alpha[time], sigma=sigma[time])


def target(parts: Parts, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
    """eps, or v = alpha * eps - sigma * x0 (Salimans & Ho, arXiv 2202.00512)."""
    if parts.prediction != "v_prediction":
        return eps
    alpha, sigma = (share.view(-1, 1, 1, 1) for share in (levels.alpha, levels.sigma))
    return alpha * eps - sigma * x0


def loss_weights(parts: Parts, levels: Levels, loss: Loss) -> Tensor:
    """[B] weights of the per-sample losses, by the signal-to-noise ratio."""
    return snr_weights(parts.prediction, levels, loss)
