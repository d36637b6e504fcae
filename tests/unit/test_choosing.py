"""Choosing: on courses whose truth is known, the recommendation, its uncertainty and the diagnoses are right."""

from __future__ import annotations

import numpy as np
import pytest

from trainpilot.evaluate.choosing import Cell, best_strength, choose, early_stop, harmonic, pareto
from trainpilot.evaluate.diagnosis import FIXES, diagnose
from trainpilot.evaluate.interval import Reading

STEPS = [20, 60, 120, 240, 480, 960]
ALIKE = [0.05, 0.3, 0.7, 0.85, 0.9, 0.92]  # rises and levels off
FOLLOWS = [1.0, 0.98, 0.95, 0.85, 0.5, 0.2]  # falls, slowly and then fast


def readings(level: float, noise: np.ndarray, spread: float) -> list[Reading]:
    return [
        Reading(prompt, seed, level + spread * float(noise[prompt, seed]))
        for prompt in range(noise.shape[0])
        for seed in range(noise.shape[1])
    ]


def course(
    alike: list[float],
    follows: list[float],
    *,
    spread: float = 0.03,
    seeds: int = 3,
    strength: float = 1.0,
    draw: int = 7,
) -> list[Cell]:
    """Cells whose true levels are given; half of the noise is common to all, as it is where seeds are."""
    rng = np.random.default_rng(draw)
    common = rng.normal(size=(2, 5, seeds))
    cells = []
    for step, one, other in zip(STEPS, alike, follows, strict=False):
        own = rng.normal(size=(2, 5, seeds))
        found = {
            "likeness_clip": readings(one, (common + own)[0], spread),
            "flexibility": readings(other, (common + own)[1], spread),
        }
        cells.append(Cell(f"step {step}", step, strength, found))
    return cells


def test_the_balance_wins_and_the_ends_are_named() -> None:
    cells = course(ALIKE, FOLLOWS)
    choice = choose(cells, "likeness_clip")
    truth = STEPS[int(harmonic(np.array(ALIKE), np.array(FOLLOWS)).argmax())]
    assert choice.best.cell.step == truth
    assert choice.verdict in ("clear", "close") and choice.best.cell.checkpoint in choice.reason
    states = {one.step: one for one in diagnose(cells, choice, {})}
    assert states[STEPS[0]].state == "undertrained" and "weak effect" in states[STEPS[0]].signs[0]
    assert states[STEPS[-1]].state == "overtrained" and "flexibility lost" in states[STEPS[-1]].signs[0]
    assert states[STEPS[-1]].fixes == [FIXES["overtrained"]]
    assert states[truth].state == "fits" and states[truth].fixes == []


def test_a_plateau_has_no_clear_winner() -> None:
    choice = choose(course([0.7] * 6, [0.8] * 6), "likeness_clip")
    assert choice.verdict == "none" and choice.reason.startswith("No clear winner")
    assert len({one.cell.checkpoint for one in choice.tied}) > 3
    assert choice.best.best_share < 0.9


def test_more_seeds_tell_more_apart() -> None:
    few = choose(course(ALIKE, FOLLOWS, spread=0.2, seeds=2), "likeness_clip")
    many = choose(course(ALIKE, FOLLOWS, spread=0.2, seeds=40), "likeness_clip")
    widths = [sum(one.behind.half for one in choice.scored) for choice in (few, many)]
    assert widths[1] < widths[0] / 2 and len(many.tied) <= len(few.tied)


def test_nothing_learned_is_said() -> None:
    cells = course([0.01, 0.02, 0.03, 0.02, 0.03, 0.04], [1.0] * 6)
    choice = choose(cells, "likeness_clip")
    assert choice.verdict == "nothing learned" and choice.reason.startswith("No checkpoint shows the subject")
    assert {one.state for one in diagnose(cells, choice, {})} == {"undertrained"}
    assert "more steps" in early_stop(cells, choice)


def test_an_interval_of_the_difference_holds_the_difference() -> None:
    choice = choose(course(ALIKE, FOLLOWS), "likeness_clip")
    for one in choice.scored:
        assert one.score.low <= one.score.mean <= one.score.high
        assert one.behind.mean == pytest.approx(choice.best.score.mean - one.score.mean)
    assert choice.best.behind.mean == 0 and choice.best.tied
    assert sum(one.best_share for one in choice.scored) == pytest.approx(1)


def test_the_same_cells_always_give_the_same_choice() -> None:
    one, other = (choose(course(ALIKE, FOLLOWS), "likeness_clip") for _ in range(2))
    assert [(s.score, s.best_share) for s in one.scored] == [(s.score, s.best_share) for s in other.scored]


def test_pareto_keeps_what_nothing_beats_in_both() -> None:
    cells = course([0.2, 0.5, 0.5, 0.9], [0.9, 0.8, 0.6, 0.1], spread=0)
    assert [cell.step for cell in pareto(cells, "likeness_clip", "flexibility")] == [20, 60, 240]


def test_strengths_as_good_as_the_best_are_listed() -> None:
    cells = course(ALIKE[:1], FOLLOWS[:1])
    for strength, alike, follows in ((0.7, 0.70, 0.90), (0.8, 0.702, 0.898), (1.2, 0.9, 0.1)):
        [cell] = course([alike], [follows], strength=strength, draw=round(10 * strength))
        cells.append(Cell("step 20", 20, strength, cell.readings))
    best, also = best_strength(choose(cells, "likeness_clip"))
    assert best in (0.7, 0.8) and also == [0.7, 0.8]


def test_advice_about_the_length_of_the_run() -> None:
    cells = course(ALIKE, FOLLOWS)
    choice = choose(cells, "likeness_clip")
    said = early_stop(cells, choice)
    assert f"training.steps={choice.best.cell.step}" in said and "Stopping after 2 checkpoints" in said
    assert "too early" not in said
    dip = course([0.5, 0.3, 0.3, 0.8, 0.5, 0.4], [1.0] * 6)
    assert f"too early, at step {STEPS[2]}" in early_stop(dip, choose(dip, "likeness_clip"))
    rising = course([0.1, 0.2, 0.3, 0.5, 0.6, 0.8], [1.0] * 6)
    assert f"training.steps={round(STEPS[-1] * 1.5)}" in early_stop(rising, choose(rising, "likeness_clip"))
    assert "One checkpoint" in early_stop(rising[:1], choose(rising[:1], "likeness_clip"))


def test_copies_are_a_sign_of_overtraining_even_where_prompts_are_followed() -> None:
    cells = course(ALIKE, [0.9] * 6)
    choice = choose(cells, "likeness_clip")
    last = cells[-1]
    if choice.best.cell is last:
        cells, choice = [*cells[:-1], last], choose(cells[:-1], "likeness_clip")
    found = diagnose(cells, choice, {last.checkpoint: 4})[-1]
    assert found.state == "overtrained" and found.signs == [
        "exact copies: 4 pictures, 4 more than " + choice.best.cell.checkpoint
    ]


def test_artefacts_are_named_only_where_they_are_sure() -> None:
    noise = np.random.default_rng(3).normal(size=(5, 3))
    cells = course(ALIKE, FOLLOWS)
    burnt, unsure = ({"saturation": readings(level, noise, 0.5)} for level in (8.0, 3.0))
    cells[4] = Cell(cells[4].checkpoint, cells[4].step, 1.0, {**cells[4].readings, **burnt})
    cells[3] = Cell(cells[3].checkpoint, cells[3].step, 1.0, {**cells[3].readings, **unsure})
    found = diagnose(cells, choose(cells, "likeness_clip"), {})
    assert found[4].artefacts[0].startswith("odd colours (burnt)") and FIXES["artefacts"] in found[4].fixes
    assert found[3].artefacts == []


def test_cells_must_share_their_pictures() -> None:
    cells = course(ALIKE, FOLLOWS)
    short = dict(cells[0].readings) | {"flexibility": list(cells[0].readings["flexibility"])[1:]}
    with pytest.raises(ValueError, match="must share their pictures"):
        choose([Cell("step 20", 20, 1.0, short), *cells[1:]], "likeness_clip")
