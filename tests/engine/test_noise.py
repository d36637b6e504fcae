"""Noise options against their formulas, drawn again by hand from the same generators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from trainpilot.config.schema import Noise
from trainpilot.engine.noise import generators, make_noise, perturb, zero_terminal_snr
from trainpilot.randomness import draw_seed, stream

SHAPE = (3, 4, 12, 20)


def _generators(slots: tuple[int, ...] = (0, 1, 2), step: int = 5) -> list[torch.Generator]:
    return generators([draw_seed(42, "noise", step, slot) for slot in slots])


def test_a_draw_depends_on_seed_step_and_slot_alone() -> None:
    x0 = torch.zeros(SHAPE)
    batch = make_noise(x0, _generators(), Noise())
    alone = make_noise(x0[:1], _generators((2,)), Noise())
    assert torch.equal(batch[2:], alone)
    assert torch.equal(
        batch[0], torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(draw_seed(42, "noise", 5, 0)))
    )
    assert not torch.equal(batch, make_noise(x0, _generators(step=6), Noise()))
    assert abs(float(batch.mean())) < 0.1 and abs(float(batch.std()) - 1) < 0.1


@pytest.mark.parametrize("adaptive", [0.0, 0.5, -0.5])
def test_offset(adaptive: float) -> None:
    x0 = torch.randn(SHAPE) + 0.3
    given = make_noise(x0, _generators(), Noise(offset=0.1, offset_adaptive=adaptive))
    for sample, generator, result in zip(x0, _generators(), given, strict=True):
        eps = torch.randn(4, 12, 20, generator=generator)
        strength = np.maximum(0, 0.1 + adaptive * np.abs(sample.double().numpy().mean(axis=(1, 2), keepdims=True)))
        expected = eps.double().numpy() + strength * torch.randn(4, 1, 1, generator=generator).double().numpy()
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_multiresolution_noise() -> None:
    noise = Noise(multires_iterations=6, multires_discount=0.4)
    given = make_noise(torch.zeros(SHAPE), _generators(), noise)
    summed = []
    for generator in _generators():
        total = torch.randn(1, 4, 12, 20, generator=generator).double()
        for level, ratio in enumerate(stream(generator.initial_seed(), "multires").uniform(2, 4, 6)):
            size = max(1, int(12 / ratio**level)), max(1, int(20 / ratio**level))
            coarse = torch.randn(1, 4, *size, generator=generator)
            total += functional.interpolate(coarse.double(), size=(12, 20), mode="bilinear") * 0.4**level
            if min(size) == 1:
                break
        summed.append(total)
    expected = torch.cat(summed)
    torch.testing.assert_close(given.double(), expected / expected.std(), rtol=1e-4, atol=1e-5)
    assert float(given.std()) == pytest.approx(1, abs=1e-4)


def test_perturbation_goes_to_the_input_alone() -> None:
    x0, noise = torch.zeros(SHAPE), Noise(ip_gamma=0.2)
    drawn = _generators()
    eps = make_noise(x0, drawn, noise)
    assert torch.equal(eps, make_noise(x0, _generators(), Noise()))
    seen = perturb(eps, drawn, noise)
    fresh = _generators()
    for index, generator in enumerate(fresh):
        torch.randn(4, 12, 20, generator=generator)
        torch.testing.assert_close(seen[index], eps[index] + 0.2 * torch.randn(4, 12, 20, generator=generator))
    assert perturb(eps, drawn, Noise()) is eps


def test_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    noise = Noise(offset=0.1, multires_iterations=4, ip_gamma=0.1)
    drawn = _generators()
    perturb(make_noise(torch.zeros(SHAPE), drawn, noise), drawn, noise)
    assert torch.equal(before, torch.get_rng_state())


def test_zero_terminal_snr_keeps_the_start_and_ends_in_noise() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    rescaled = (1 - zero_terminal_snr(betas)).cumprod(0)
    assert float(rescaled[0]) == pytest.approx(1 - 0.00085, rel=1e-12)
    assert float(rescaled[-1]) == pytest.approx(0, abs=1e-12)
    assert bool((rescaled.diff() < 0).all())
    from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

    torch.testing.assert_close(rescaled, (1 - rescale_zero_terminal_snr(betas)).cumprod(0))
