"""How sure a number is: means with 95% intervals over seeds, and paired differences. Used by metrics and choosing.

Prompts are fixed by the protocol; what is drawn at random are the seeds. So the spread is taken within each prompt,
pooled over the prompts, and Student's t has as many degrees of freedom as there are pictures less prompts:
    half = t(0.975, n - P) * sqrt(s^2 * sum_p 1/n_p) / P,   s^2 = sum_ps (x_ps - mean_p)^2 / (n - P).
It assumes that the spread is about the same for every prompt. A metric with one value a prompt (diversity) has no
spread within prompts: there the interval is over prompts, and is named so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Reading:
    """One value: of the picture of a prompt (by its number in the protocol) and a seed; seed None: of all its seeds."""

    prompt: int
    seed: int | None
    value: float


@dataclass(frozen=True)
class Estimate:
    """mean with the two-sided 95% interval low..high, from n values; over: what the spread was taken over."""

    mean: float
    low: float
    high: float
    n: int
    over: str

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "over": self.over}


def estimate(readings: Sequence[Reading]) -> Estimate | None:
    """The mean over prompts, each prompt counted alike; None without a value. Without any spread to go by, the
    interval is without bounds: one number alone says nothing of how sure it is."""
    groups: dict[int, list[float]] = {}
    for reading in readings:
        if math.isfinite(reading.value):
            groups.setdefault(reading.prompt, []).append(reading.value)
    if not groups:
        return None
    means = np.array([np.mean(values) for values in groups.values()])
    n = sum(len(values) for values in groups.values())
    mean, degrees = float(means.mean()), n - len(groups)
    if degrees > 0:
        squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in groups.values())
        share = sum(1 / len(values) for values in groups.values())
        half = quantile(degrees) * math.sqrt(squares / degrees * share) / len(groups)
        return Estimate(mean, mean - half, mean + half, n, "seeds")
    if len(means) > 1:
        half = quantile(len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
        return Estimate(mean, mean - half, mean + half, n, "prompts")
    return Estimate(mean, -math.inf, math.inf, n, "nothing")


def difference(one: Sequence[Reading], other: Sequence[Reading]) -> Estimate | None:
    """one less other, paired by prompt and seed: both were painted from the same noise, which cancels."""
    known = {(reading.prompt, reading.seed): reading.value for reading in other}
    paired = [
        Reading(reading.prompt, reading.seed, reading.value - known[reading.prompt, reading.seed])
        for reading in one
        if (reading.prompt, reading.seed) in known
    ]
    return estimate(paired)


@lru_cache(maxsize=256)
def quantile(degrees: int, level: float = LEVEL) -> float:
    """Student's t: the value that is exceeded either way with probability 1 - level.

    By bisection on the distribution function, whose tail is half the regularised incomplete beta function
    I_x(v/2, 1/2) at x = v / (v + t^2); that one by the continued fraction of Lentz (Numerical Recipes, 6.4).
    """
    low, high = 0.0, 1000.0
    for _ in range(200):
        middle = (low + high) / 2
        if _beta(degrees / (degrees + middle * middle), degrees / 2, 0.5) > 1 - level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side alone
        return 1 - front * _fraction(1 - x, b, a) / b
    return front * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 300):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + factor * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + factor / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return value
