"""Losses and weightings against their formulas in numpy's float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainpilot.config.schema import Loss
from trainpilot.engine.losses import per_sample_loss, snr_weights
from trainpilot.families.protocol import Levels

TIME = np.array([0, 10, 500, 998])
ABAR = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[TIME]
SNR = ABAR / (1 - ABAR)  # 1175 at step 0: above the ceiling of 1000
LEVELS = Levels(
    time=torch.tensor(TIME),
    alpha=torch.tensor(np.sqrt(ABAR), dtype=torch.float32),
    sigma=torch.tensor(np.sqrt(1 - ABAR), dtype=torch.float32),
)
torch.manual_seed(0)
GUESS, TARGET = torch.randn(4, 4, 6, 5), torch.randn(4, 4, 6, 5)
D = GUESS.double().numpy() - TARGET.double().numpy()


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("kind", ["l2", "huber", "smooth_l1"])
def test_distances(kind: str, schedule: str) -> None:
    given = per_sample_loss(GUESS, TARGET, Loss(type=kind, huber_c=0.15, huber_schedule=schedule), LEVELS)
    c = {
        "constant": np.full(4, 0.15),
        "exponential": 0.15 ** (TIME / 1000),
        "snr": (1 - 0.15) / (1 + np.sqrt((1 - ABAR) / ABAR)) ** 2 + 0.15,
    }[schedule].reshape(-1, 1, 1, 1)
    expected = {
        "l2": D**2,
        "huber": 2 * c * (np.sqrt(D**2 + c**2) - c),
        "smooth_l1": 2 * (np.sqrt(D**2 + c**2) - c),
    }[kind]
    assert given.shape == (4,) and given.dtype == torch.float32
    np.testing.assert_allclose(given.numpy(), expected.mean(axis=(1, 2, 3)), rtol=1e-5)


def test_flow_times_are_shares_already() -> None:
    sigma = torch.tensor([0.0, 0.25, 0.5, 1.0])
    levels = Levels(time=sigma, alpha=1 - sigma, sigma=sigma)
    for schedule in ("exponential", "snr"):
        loss = Loss(type="huber", huber_c=0.2, huber_schedule=schedule)
        s = sigma.double().numpy()
        c = 0.2**s if schedule == "exponential" else (1 - 0.2) * (1 - s) ** 2 + 0.2  # 1 / (1 + s/(1-s)) is 1 - s
        c = c.reshape(-1, 1, 1, 1)
        expected = (2 * c * (np.sqrt(D**2 + c**2) - c)).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(per_sample_loss(GUESS, TARGET, loss, levels).numpy(), expected, rtol=1e-5)


def test_a_mask_scales_places() -> None:
    mask = torch.rand(4, 1, 6, 5)
    given = per_sample_loss(GUESS, TARGET, Loss(), LEVELS, mask)
    np.testing.assert_allclose(given.numpy(), (D**2 * mask.double().numpy()).mean(axis=(1, 2, 3)), rtol=1e-5)
    assert float(per_sample_loss(GUESS, TARGET, Loss(), LEVELS, torch.zeros(4, 1, 6, 5)).sum()) == 0


def test_bf16_predictions_are_compared_in_float32() -> None:
    given = per_sample_loss(GUESS.bfloat16(), TARGET, Loss(), LEVELS)
    assert given.dtype == torch.float32
    expected = (GUESS.bfloat16().double().numpy() - TARGET.double().numpy()) ** 2
    np.testing.assert_allclose(given.numpy(), expected.mean(axis=(1, 2, 3)), rtol=1e-5)


BOUNDED = np.minimum(SNR, 1000)
NOISE_WEIGHTS = {
    "min_snr_gamma": (5.0, np.minimum(SNR, 5) / SNR),
    "debiased": (True, 1 / np.sqrt(BOUNDED)),
    "v_like_weight": (0.3, 1 + 0.3 * (BOUNDED + 1) / BOUNDED),
    "scale_v_like_noise": (True, np.ones(4)),  # of v-prediction only
}
V_WEIGHTS = {
    "min_snr_gamma": (5.0, np.minimum(SNR, 5) / (SNR + 1)),
    "debiased": (True, 1 / (BOUNDED + 1)),
    "v_like_weight": (0.3, np.ones(4)),  # of noise prediction only
    "scale_v_like_noise": (True, BOUNDED / (BOUNDED + 1)),
}


@pytest.mark.parametrize(("prediction", "table"), [("epsilon", NOISE_WEIGHTS), ("v_prediction", V_WEIGHTS)])
def test_weights(prediction: str, table: dict[str, tuple[object, np.ndarray]]) -> None:
    np.testing.assert_array_equal(snr_weights(prediction, LEVELS, Loss()).numpy(), np.ones(4))
    product = np.ones(4)
    for option, (value, expected) in table.items():
        given = snr_weights(prediction, LEVELS, Loss(**{option: value}))
        np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5)
        product = product * expected
    together = snr_weights(prediction, LEVELS, Loss(**{option: value for option, (value, _) in table.items()}))
    np.testing.assert_allclose(together.numpy(), product, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_are_finite_at_pure_noise_and_at_none(prediction: str) -> None:
    levels = Levels(time=torch.tensor([0, 999]), alpha=torch.tensor([1.0, 0.0]), sigma=torch.tensor([1e-4, 1.0]))
    loss = Loss(min_snr_gamma=5, debiased=True, v_like_weight=0.5, scale_v_like_noise=True)
    assert bool(torch.isfinite(snr_weights(prediction, levels, loss)).all())
