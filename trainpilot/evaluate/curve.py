"""The loss over the steps as an inline SVG that needs no script and scales with its frame. Used by the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

POINTS = 360  # most that are drawn: more than a line of a screen can show

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """Losses by optimizer step, ascending, as told and smoothed. window: steps told for one drawn point.

    first: mean over the first tenth of the run, at least one step; last: the smoothed loss at its end.
    """

    raw: list[Point]
    smooth: list[Point]
    window: int
    first: float
    last: float


def curve(points: Sequence[Point]) -> Curve | None:
    """From (step, loss), ascending; None without any. Not-a-number losses are left out.

    Smoothed is the exponential mean with the bias of its start taken out, (1 - b) sum b^i y_(n-i) / (1 - b^(n+1)); b
    reaches over a tenth of the run. Where there are many points, each drawn one is the mean of its window.
    """
    known = [(step, loss) for step, loss in points if math.isfinite(loss)]
    if not known:
        return None
    keep = 1 - 1 / max(len(known) / 10, 2)
    total = weight = 0.0
    smooth = []
    for step, loss in known:
        total, weight = keep * total + (1 - keep) * loss, keep * weight + (1 - keep)
        smooth.append((step, total / weight))
    window = -(-len(known) // POINTS)
    early = known[: max(len(known) // 10, 1)]
    first = sum(loss for _, loss in early) / len(early)
    return Curve(_binned(known, window), _binned(smooth, window), window, first, smooth[-1][1])


def _binned(points: Sequence[Point], window: int) -> list[Point]:
    if window == 1:
        return list(points)
    groups = [points[start : start + window] for start in range(0, len(points), window)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) from low to high, some `about` of them."""
    span = (high - low) / about
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(drawn: Curve) -> str:
    """The chart: lines in an SVG that stretches to its frame, labels as HTML beside it, so that text never does."""
    values = [value for _, value in drawn.raw]
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or max(abs(high) * 0.06, 1e-6)
    low, high = max(0.0, low - margin) if low >= 0 else low - margin, high + margin
    first, last = drawn.raw[0][0], drawn.raw[-1][0]

    def x(step: float) -> float:
        return 1000 * (step - first) / (last - first) if last > first else 500.0

    def y(value: float) -> float:
        return 300 * (high - value) / (high - low)

    def line(points: Sequence[Point]) -> str:
        if len(points) == 1:  # a line of one point shows nothing
            points = [(points[0][0] - 0.5, points[0][1]), (points[0][0] + 0.5, points[0][1])]
        return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)

    levels, places = ticks(low, high), [step for step in ticks(first, last) if step == int(step)]
    grid = "".join(f'<path class="grid" d="M0 {y(value):.1f}H1000"/>' for value in levels)
    beside = "".join(f'<span style="top:{y(value) / 3:.2f}%">{escape(f"{value:.3g}")}</span>' for value in levels)
    below = "".join(f'<span style="left:{x(step) / 10:.2f}%">{step:,.0f}</span>' for step in places)
    told = f"Loss from step {first:,.0f} to {last:,.0f}: {drawn.first:.4g} over the first tenth, then {drawn.last:.4g}"
    return (
        f'<div class="chart"><div class="levels" aria-hidden="true">{beside}</div>'
        f'<svg viewBox="0 0 1000 300" preserveAspectRatio="none" role="img" aria-label="{escape(told)}">{grid}'
        f'<path class="raw" d="{line(drawn.raw)}"/><path class="smooth" d="{line(drawn.smooth)}"/></svg>'
        f'<div class="places" aria-hidden="true">{below}</div></div>'
    )
