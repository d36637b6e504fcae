"""Noise levels, targets, losses and weights against the formulas of the papers, in numpy's float64."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given as draw
from hypothesis import strategies as st

from trainpilot.config.schema import Loss, Noise
from trainpilot.engine.losses import per_sample_loss
from trainpilot.engine.noise import mix
from trainpilot.errors import PilotError
from trainpilot.families.construction import configs
from trainpilot.families.protocol import Parts
from trainpilot.families.registry import adapter

U = torch.tensor([0.0, 0.001, 0.25, 0.5, 0.75, 0.9999])


def _parts(family: str, prediction: str) -> Parts:
    return Parts(prediction, 0.0, 1.0, 8, configs(family)["scheduler"]["config"])


def _cumulative(zero_terminal: bool = False) -> np.ndarray:
    """abar of Stable Diffusion: scaled_linear betas 0.00085 -> 0.012, 1000 steps; rescaled by arXiv 2305.08891."""
    abar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    if zero_terminal:
        root = np.sqrt(abar)
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return abar


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("zero_terminal", [False, True])
def test_uniform_steps_and_their_shares(family: str, zero_terminal: bool) -> None:
    noise = Noise(timesteps="uniform", zero_terminal_snr=zero_terminal)
    levels = adapter(family).levels(_parts(family, "epsilon"), U, noise, (64, 64))
    time = np.floor(U.double().numpy() * 1000).astype(int)
    assert levels.time.dtype == torch.int64 and levels.time.tolist() == time.tolist() == [0, 1, 250, 500, 750, 999]
    abar = _cumulative(zero_terminal)[time]
    np.testing.assert_allclose(levels.alpha.numpy(), np.sqrt(abar), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(levels.sigma.numpy(), np.sqrt(1 - abar), rtol=1e-6)
    if zero_terminal:
        assert levels.alpha[-1] == 0 and levels.sigma[-1] == 1


def test_the_table_is_that_of_diffusers() -> None:
    import diffusers

    scheduler = diffusers.DDPMScheduler(**configs("sd15")["scheduler"]["config"])
    every = torch.arange(1000) / 1000 + 0.0005
    levels = adapter("sd15").levels(_parts("sd15", "epsilon"), every, Noise(timesteps="uniform"), (64, 64))
    torch.testing.assert_close(levels.alpha**2, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_v_and_noise_targets() -> None:
    x0, eps = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    levels = adapter("sd15").levels(_parts("sd15", "epsilon"), U, Noise(timesteps="uniform"), (64, 64))
    abar = _cumulative()[levels.time.numpy()].reshape(-1, 1, 1, 1)
    for family in ("sd15", "sdxl"):
        assert torch.equal(adapter(family).target(_parts(family, "epsilon"), x0, eps, levels), eps)
        v = adapter(family).target(_parts(family, "v_prediction"), x0, eps, levels)
        expected = np.sqrt(abar) * eps.double().numpy() - np.sqrt(1 - abar) * x0.double().numpy()
        np.testing.assert_allclose(v.numpy(), expected, rtol=1e-5, atol=1e-6)
    noisy = np.sqrt(abar) * x0.double().numpy() + np.sqrt(1 - abar) * eps.double().numpy()
    np.testing.assert_allclose(mix(x0, eps, levels).numpy(), noisy, rtol=1e-5, atol=1e-6)


def test_flow_path_and_target() -> None:
    x0, eps = torch.randn(6, 16, 4, 4), torch.randn(6, 16, 4, 4)
    parts = _parts("flux", "flow")
    levels = adapter("flux").levels(parts, U, Noise(timesteps="uniform"), (64, 64))
    sigma = U.double().numpy().reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(levels.time.numpy(), U.numpy(), rtol=1e-6)
    expected = (1 - sigma) * x0.double().numpy() + sigma * eps.double().numpy()
    np.testing.assert_allclose(mix(x0, eps, levels).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(adapter("flux").target(parts, x0, eps, levels), eps - x0)


@pytest.mark.parametrize("size", [(32, 32), (128, 128), (64, 96)])
@pytest.mark.parametrize("kind", ["sigmoid", "shift", "flux_shift", "logit_normal"])
def test_distributions_of_the_level(kind: str, size: tuple[int, int]) -> None:
    u = torch.tensor([0.01, 0.3, 0.5, 0.97])
    noise = Noise(timesteps=kind, sigmoid_scale=1.3, shift=2.5, logit_mean=0.4, logit_std=0.8)
    normal = np.array([NormalDist().inv_cdf(float(x)) for x in u])
    x = 1 / (1 + np.exp(-1.3 * normal))
    tokens = size[0] // 2 * (size[1] // 2)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)  # 0.5 at 256 tokens, 1.15 at 4096
    expected = {
        "sigmoid": x,
        "shift": 2.5 * x / (1 + 1.5 * x),
        "flux_shift": math.exp(mu) / (math.exp(mu) + 1 / x - 1),
        "logit_normal": 1 / (1 + np.exp(-(0.4 + 0.8 * normal))),
    }[kind]
    flow = adapter("flux").levels(_parts("flux", "flow"), u, noise, size)
    np.testing.assert_allclose(flow.sigma.numpy(), expected, rtol=1e-5)
    discrete = adapter("sd15").levels(_parts("sd15", "epsilon"), u, noise, size)
    np.testing.assert_array_equal(discrete.time.numpy(), np.floor(expected * 1000).astype(int))


@draw(st.integers(0, 998), st.integers(1, 1000), st.floats(0, 1, exclude_max=True, width=32))
def test_levels_stay_within_their_bounds(low: int, width: int, u: float) -> None:
    high = min(1000, low + width)
    for kind in ("uniform", "sigmoid", "flux_shift", "logit_normal"):
        noise = Noise(timesteps=kind, min_timestep=low, max_timestep=high)
        time = adapter("sdxl").levels(_parts("sdxl", "epsilon"), torch.tensor([u]), noise, (64, 64)).time
        assert low <= int(time) < high
        sigma = float(adapter("flux").levels(_parts("flux", "flow"), torch.tensor([u]), noise, (64, 64)).sigma)
        assert low / 1000 - 1e-6 <= sigma <= high / 1000 + 1e-6


def test_bounds_that_leave_nothing_are_refused() -> None:
    for family, prediction in (("sd15", "epsilon"), ("flux", "flow")):
        with pytest.raises(PilotError, match="max_timestep"):
            noise = Noise(min_timestep=500, max_timestep=500)
            adapter(family).levels(_parts(family, prediction), U, noise, (64, 64))


def test_auto_is_the_familys_own_distribution() -> None:
    for family, own in (("sd15", "uniform"), ("sdxl", "uniform"), ("flux", "sigmoid")):
        levels = adapter(family).levels
        parts = _parts(family, "epsilon")
        automatic, named = (levels(parts, U, Noise(timesteps=kind), (64, 64)).time for kind in ("auto", own))
        assert torch.equal(automatic, named)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux"])
def test_the_whole_loss_of_a_family(family: str) -> None:
    """min-SNR weighted huber loss of a prediction, from clean latents to the number."""
    prediction = "flow" if family == "flux" else "v_prediction"
    torch.manual_seed(3)
    x0, eps, guess = (torch.randn(3, 4, 4, 4) for _ in range(3))
    u = torch.tensor([0.1, 0.5, 0.9])
    parts, loss = _parts(family, prediction), Loss(type="huber", huber_c=0.2, min_snr_gamma=5)
    levels = adapter(family).levels(parts, u, Noise(timesteps="uniform"), (64, 64))
    target = adapter(family).target(parts, x0, eps, levels)
    given = per_sample_loss(guess, target, loss, levels) * adapter(family).loss_weights(parts, levels, loss)

    if family == "flux":
        s = u.double().numpy()
        wanted, ratio, weight = (eps - x0).double().numpy(), s / (1 - s), np.ones(3)
    else:
        abar = _cumulative()[[100, 500, 900]]
        shares = abar.reshape(-1, 1, 1, 1)
        wanted = np.sqrt(shares) * eps.double().numpy() - np.sqrt(1 - shares) * x0.double().numpy()
        snr = abar / (1 - abar)
        ratio, weight = np.sqrt(1 / snr), np.minimum(snr, 5) / (snr + 1)
    c = ((1 - 0.2) / (1 + ratio) ** 2 + 0.2).reshape(-1, 1, 1, 1)
    distance = 2 * c * (np.sqrt((guess.double().numpy() - wanted) ** 2 + c**2) - c)
    np.testing.assert_allclose(given.numpy(), distance.mean(axis=(1, 2, 3)) * weight, rtol=1e-5)
