"""Which checkpoint, at which strength, and how sure that is. Numbers only: no pictures, no torch. Used by evaluations.

A cell is a checkpoint at a strength. Its score is the harmonic mean of likeness and flexibility, each cut to 0..1: it
is high where both are, and falls to 0 with either, because a LoRA that is only alike is a copy and one that only
follows prompts is the base. Which cells cannot be told apart is asked of a bootstrap over seeds: within each prompt
the seeds are drawn anew with replacement, the same ones for every cell, since all were painted from the same noise;
deviations are scaled by sqrt(S / (S - 1)), without which a bootstrap of S = 3 seeds shows two thirds of the variance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainpilot.evaluate.interval import Estimate, Reading, difference, estimate

RESAMPLES = 2000
LEAST_LIKENESS = 0.1  # 0 is the base, 1 the dataset: below it, nothing has been learned
Verdict = Literal["clear", "close", "none", "nothing learned"]


@dataclass(frozen=True)
class Cell:
    """A checkpoint at a strength, and what was measured: metric -> readings. step None: a file of elsewhere."""

    checkpoint: str
    step: int | None
    strength: float
    readings: Mapping[str, Sequence[Reading]]

    @property
    def name(self) -> str:
        return f"{self.checkpoint} at {self.strength:g}"

    def estimate(self, metric: str) -> Estimate | None:
        return estimate(self.readings.get(metric, ()))

    def mean(self, metric: str) -> float:
        found = self.estimate(metric)
        return found.mean if found else float("nan")


@dataclass(frozen=True)
class Scored:
    """A cell's score with its 95% interval, and how often it was the best of all when the seeds were drawn anew."""

    cell: Cell
    score: Estimate
    best_share: float
    behind: Estimate  # the best cell's score less this one's

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best."""
        return self.behind.low <= 0


@dataclass(frozen=True)
class Choice:
    """The recommendation. scored: all cells; pareto: those that no other beats in likeness and flexibility at once."""

    verdict: Verdict
    best: Scored
    scored: list[Scored]
    pareto: list[Cell]
    reason: str
    likeness_by: str

    @property
    def tied(self) -> list[Scored]:
        """What cannot be told from the best, itself included, the better first."""
        return sorted((one for one in self.scored if one.tied), key=lambda one: -one.score.mean)


def harmonic(likeness: NDArray[np.floating], flexibility: NDArray[np.floating]) -> NDArray[np.floating]:
    """2 L F / (L + F) of values cut to 0..1; 0 where both are 0."""
    one, other = np.clip(likeness, 0, 1), np.clip(flexibility, 0, 1)
    return 2 * one * other / np.maximum(one + other, 1e-12)


def choose(cells: Sequence[Cell], likeness: str, flexibility: str = "flexibility") -> Choice:
    """The best of `cells` (at least one), by the metrics of these names. Ties are told, not hidden."""
    alike = _resampled(cells, likeness)
    follows = _resampled(cells, flexibility)
    points = harmonic(alike[:, 0], follows[:, 0])
    drawn = harmonic(alike[:, 1:], follows[:, 1:])
    top = int(points.argmax())
    wins = np.bincount(drawn.argmax(0), minlength=len(cells)) / drawn.shape[1]
    scored = [
        Scored(
            cell,
            _percentiles(float(points[number]), drawn[number]),
            float(wins[number]),
            _percentiles(float(points[top] - points[number]), drawn[top] - drawn[number]),
        )
        for number, cell in enumerate(cells)
    ]
    best = scored[top]
    verdict = _verdict(best, scored, likeness)
    chosen = Choice(verdict, best, scored, pareto(cells, likeness, flexibility), "", likeness)
    return Choice(verdict, best, scored, chosen.pareto, _reason(chosen, flexibility), likeness)


def _resampled(cells: Sequence[Cell], metric: str) -> NDArray[np.float64]:
    """[cells, 1 + RESAMPLES] means over prompts: of the readings, then of seeds drawn anew within each prompt."""
    keys = sorted({(r.prompt, r.seed if r.seed is not None else -1) for cell in cells for r in cell.readings[metric]})
    prompts = sorted({prompt for prompt, _ in keys})
    rng = np.random.default_rng(0)
    total = np.zeros((len(cells), 1 + RESAMPLES))
    for prompt in prompts:
        seeds = [seed for one, seed in keys if one == prompt]
        values = np.array([[_value(cell, metric, prompt, seed) for seed in seeds] for cell in cells])
        mean = values.mean(1, keepdims=True)
        drawn = values[:, rng.integers(0, len(seeds), (RESAMPLES, len(seeds)))].mean(2)
        wider = (len(seeds) / (len(seeds) - 1)) ** 0.5 if len(seeds) > 1 else 1.0
        total += np.concatenate([mean, mean + wider * (drawn - mean)], axis=1)
    return total / len(prompts)


def _value(cell: Cell, metric: str, prompt: int, seed: int) -> float:
    for reading in cell.readings[metric]:
        if reading.prompt == prompt and (reading.seed if reading.seed is not None else -1) == seed:
            return reading.value
    raise ValueError(f"{cell.name} has no {metric} of prompt {prompt} and seed {seed}: cells must share their pictures")


def _percentiles(point: float, drawn: NDArray[np.floating]) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(point, float(low), float(high), len(drawn), "seeds, bootstrap")


def pareto(cells: Sequence[Cell], likeness: str, flexibility: str) -> list[Cell]:
    """The cells that no other one equals or beats in both, and beats in one."""
    points = [(cell.mean(likeness), cell.mean(flexibility)) for cell in cells]

    def beaten(one: tuple[float, float]) -> bool:
        return any(a >= one[0] and b >= one[1] and (a, b) != one for a, b in points)

    return [cell for cell, point in zip(cells, points, strict=True) if not beaten(point)]


def _verdict(best: Scored, scored: Sequence[Scored], likeness: str) -> Verdict:
    alike = best.cell.estimate(likeness)
    if alike is None or alike.mean < LEAST_LIKENESS:
        return "nothing learned"
    order = list(dict.fromkeys(one.cell.checkpoint for one in sorted(scored, key=lambda one: one.cell.step or 0)))
    tied = {one.cell.checkpoint for one in scored if one.tied}
    if tied == {best.cell.checkpoint}:
        return "clear"
    places = sorted(order.index(name) for name in tied)
    return "close" if places[-1] - places[0] == len(places) - 1 and len(places) <= 3 else "none"


def _reason(choice: Choice, flexibility: str) -> str:
    best, cell = choice.best, choice.best.cell
    facts = (
        f"likeness {cell.mean(choice.likeness_by):.2f} (1 is the dataset), "
        f"{100 * cell.mean(flexibility):.0f}% of the base's flexibility"
    )
    if choice.verdict == "nothing learned":
        return f"No checkpoint shows the subject: the best has {facts}."
    others = list(dict.fromkeys(one.cell.checkpoint for one in choice.tied if one.cell.checkpoint != cell.checkpoint))
    said = f"{cell.name} has the best balance: {facts}."
    if choice.verdict == "clear":
        return f"{said} No other checkpoint comes near, whichever seeds are drawn ({best.best_share:.0%} of draws)."
    named = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    if choice.verdict == "close":
        return f"{said} Its neighbours {named} cannot be told from it with these seeds; any of them will do."
    return (
        f"No clear winner: {named} cannot be told from {cell.checkpoint} with these seeds. {said} "
        "Look at the pictures, or evaluate again with more seeds."
    )


def best_strength(choice: Choice) -> tuple[float, list[float]]:
    """The strength of the recommendation, and those of the same checkpoint that cannot be told from it, ascending."""
    name = choice.best.cell.checkpoint
    same = [one.cell.strength for one in choice.tied if one.cell.checkpoint == name]
    return choice.best.cell.strength, sorted(same)


def early_stop(cells: Sequence[Cell], choice: Choice, patience: int = 2) -> str:
    """What the course of the score says about the length of the run. cells: at one strength, by step."""
    course = [one for one in sorted(choice.scored, key=lambda one: one.cell.step or 0) if one.cell in cells]
    if len(course) < 2:
        return "One checkpoint says nothing about the length of the run."
    best = max(course, key=lambda one: one.score.mean)
    last = course[-1]
    assert best.cell.step is not None and last.cell.step is not None
    if choice.verdict == "nothing learned":
        return "The run has not begun to learn: more steps, or a higher rate."
    if best is last:
        return (
            f"The last checkpoint (step {last.cell.step}) is the best so far: training longer may gain more. "
            f"Continue with training.steps={round(last.cell.step * 1.5)}."
        )
    after = 1 - best.cell.step / last.cell.step
    since, stop = 0, None
    leader = course[0].score.mean
    for one in course[1:]:
        since = 0 if one.score.mean > leader else since + 1
        leader = max(leader, one.score.mean)
        if since == patience:
            stop = one.cell.step
            break
    early = " too early," if stop and stop < best.cell.step else ""
    ended = f" Stopping after {patience} checkpoints without a gain would have ended it{early} at step {stop}."
    ended = ended if stop else ""
    return (
        f"The best checkpoint is step {best.cell.step}; the {after:.0%} of the run after it gained nothing.{ended} "
        f"For the next run: training.steps={best.cell.step}."
    )


def compared(cells: Sequence[Cell], one: Cell, other: Cell, metrics: Sequence[str]) -> dict[str, Any]:
    """one less other by metric, paired; for tables of differences."""
    found = {metric: difference(one.readings.get(metric, ()), other.readings.get(metric, ())) for metric in metrics}
    return {metric: value.as_dict() for metric, value in found.items() if value is not None}
