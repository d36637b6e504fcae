"""Intervals: Student's t against a simulation, pairing, and what is said where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.evaluate.interval import Reading, difference, estimate, quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 30, 200])
def test_the_quantile_is_the_one_that_student_s_t_exceeds_once_in_twenty(degrees: int) -> None:
    rng = np.random.default_rng(degrees)
    drawn = np.abs(rng.standard_t(degrees, 400_000))
    # Four standard deviations of a share of one in twenty of so many draws.
    assert abs(float((drawn > quantile(degrees)).mean()) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 400_000)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    prompts = np.array([0.1, 0.5, 0.9, 0.4])  # each prompt has a level of its own, which is no uncertainty
    held = 0
    for _ in range(2000):
        values = prompts[:, None] + rng.normal(0, 0.2, (4, 3))
        found = estimate([Reading(p, s, float(values[p, s])) for p in range(4) for s in range(3)])
        assert found is not None and found.over == "seeds"
        held += found.low <= prompts.mean() <= found.high
    assert abs(held / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_a_constant_offset_is_seen_through_any_noise_that_both_share() -> None:
    rng = np.random.default_rng(2)
    noise = {(p, s): float(rng.normal()) for p in range(3) for s in range(3)}
    one = [Reading(p, s, value + 0.25) for (p, s), value in noise.items()]
    other = [Reading(p, s, value) for (p, s), value in noise.items()]
    found = difference(one, other)
    assert found is not None and found.low == pytest.approx(0.25) and found.high == pytest.approx(0.25)
    alone = estimate(one)
    assert alone is not None and alone.half > 0.5


def test_one_value_a_prompt_has_its_spread_over_prompts() -> None:
    found = estimate([Reading(p, None, value) for p, value in enumerate([1.0, 2.0, 3.0])])
    assert found is not None and found.over == "prompts"
    assert found.half == pytest.approx(quantile(2) * 1.0 / math.sqrt(3))


def test_one_value_says_nothing_of_how_sure_it_is() -> None:
    found = estimate([Reading(0, 1, 5.0)])
    assert found is not None and (found.mean, found.low, found.high) == (5.0, -math.inf, math.inf)
    assert estimate([]) is None and estimate([Reading(0, 1, math.nan)]) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(-1e6, 1e6)), min_size=1, unique_by=lambda t: t[:2]
    ),
    st.floats(-100, 100),
)
def test_shifting_every_value_shifts_the_interval(rows: list[tuple[int, int, float]], by: float) -> None:
    one = estimate([Reading(*row) for row in rows])
    other = estimate([Reading(p, s, value + by) for p, s, value in rows])
    assert one is not None and other is not None
    assert other.mean == pytest.approx(one.mean + by, abs=1e-6)
    assert one.low <= one.mean <= one.high
    if math.isfinite(one.half):
        assert other.half == pytest.approx(one.half, rel=1e-6, abs=1e-6)
