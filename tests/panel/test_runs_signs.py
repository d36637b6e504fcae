"""Good and warning signs on made-up curves: each appears where it should, and not where chance alone is at work."""

from __future__ import annotations

import math
import random

import pytest

from controlpilot.views import signs
from controlpilot.views.signs import Facts


def curve(shape, count=400, noise=0.02, seed=1):
    draw = random.Random(seed)
    return [shape(place / count) + draw.gauss(0, noise) for place in range(count)]


def facts(**more):
    losses = more.get("losses", ())
    return Facts(**{"steps": list(range(1, len(losses) + 1)), "of": 1000} | more)


FALLING = curve(lambda x: 0.15 * math.exp(-3 * x) + 0.05)
RISING = curve(lambda x: 0.1 - 0.05 * x if x < 0.5 else 0.075 + 0.2 * (x - 0.5))
FLAT = curve(lambda x: 0.1)


def test_a_falling_loss_is_good():
    sign = signs.falling_loss(facts(losses=FALLING))
    assert sign.level == "good" and "falling" in sign.text
    assert signs.rising_loss(facts(losses=FALLING)) is None


def test_a_rising_loss_is_a_warning_with_a_remedy_and_hides_that_it_fell():
    found = signs.signs(facts(losses=RISING))
    assert found[0].key == "rising" and found[0].level == "warning" and "learning rate" in found[0].remedy
    assert "falling" not in [sign.key for sign in found]


@pytest.mark.parametrize("seed", range(40))
def test_chance_alone_is_neither(seed):
    flat = facts(losses=curve(lambda x: 0.1, noise=0.05, seed=seed))
    assert signs.rising_loss(flat) is None
    assert signs.falling_loss(flat) is None


def test_too_few_steps_say_nothing():
    assert signs.rising_loss(facts(losses=[0.1, 0.9] * 10)) is None
    assert signs.falling_loss(facts(losses=[0.9, 0.1])) is None


def test_a_loss_that_is_no_number():
    rolled = "loss nan, gradient norm nan at step 40: rolled back to step-00000020, rates times 0.1 from here on"
    sign = signs.not_a_number(facts(notes=[rolled]))
    assert sign.level == "warning" and "went back" in sign.text and "bf16" in sign.remedy
    assert signs.not_a_number(facts(nan_steps=[7])).text.startswith("The loss stopped being a number at step 7")
    failed = facts(status="failed", reason="step 60: loss nan, gradient norm nan at step 60, again after a rollback")
    assert signs.not_a_number(failed).level == "bad"
    assert signs.not_a_number(facts(losses=FLAT)) is None


def test_memory_that_did_not_suffice():
    assert signs.out_of_memory(facts(notes=["out of memory: the blocks are computed again"])).level == "warning"
    failed = facts(status="failed", reason="CUDA out of memory. Tried to allocate 2 GiB")
    assert signs.out_of_memory(failed).level == "bad" and "batch size 1" in signs.out_of_memory(failed).remedy
    assert signs.out_of_memory(facts(notes=["a room in bloom"])) is None


def test_no_errors_is_good_and_an_error_is_not():
    assert signs.device_errors(facts(losses=FLAT)).level == "good"
    assert signs.device_errors(facts(losses=FLAT, notes=["CUDA error: an illegal memory access"])).level == "bad"
    assert signs.device_errors(facts(losses=[0.1] * 5)) is None
    assert signs.device_errors(facts(losses=FLAT, notes=["CUDA out of memory"])) is None


@pytest.mark.parametrize(
    ("made", "level"), [([100, 200, 300, 400], "good"), ([100], "warning"), ([], "warning"), ([300], "good")]
)
def test_checkpoints_come_regularly_or_are_missed(made, level):
    assert signs.checkpoints(facts(losses=FLAT, checkpoints=made, checkpoint_every=100)).level == level


def test_checkpoints_are_no_matter_where_none_are_due():
    assert signs.checkpoints(facts(losses=FLAT)) is None
    assert signs.checkpoints(facts(losses=FLAT[:30], checkpoint_every=100)) is None


def test_samples_ask_for_a_look():
    assert "step 400 with step 100" in signs.samples(facts(losses=FLAT, samples={100, 400})).remedy
    assert signs.samples(facts(losses=FLAT)) is None


def test_a_run_that_slows_down_or_is_below_its_plan():
    steady = [2.0] * 400
    assert signs.slow(facts(losses=FLAT, speeds=steady, planned_seconds_per_step=0.5)) is None
    assert "slowed down" in signs.slow(facts(losses=FLAT, speeds=[2.0] * 380 + [0.4] * 20)).text
    assert "than planned" in signs.slow(facts(losses=FLAT, speeds=steady, planned_seconds_per_step=0.1)).text
    assert signs.slow(facts(status="done", losses=FLAT, speeds=[2.0] * 380 + [0.4] * 20)) is None


def test_a_silent_run():
    assert "loading the model" in signs.silent(facts(phase="load", heartbeat_age=90)).text
    assert signs.silent(facts(heartbeat_age=2)) is None


def test_jumping_gradients_and_one_spike():
    calm = [1.0] * 400
    assert signs.gradients(facts(losses=FLAT, norms=calm)) is None
    assert signs.gradients(facts(losses=FLAT, norms=[*calm[:-1], 50.0])) is None
    assert signs.gradients(facts(losses=FLAT, norms=calm[:-5] + [50.0] * 5)).level == "warning"


def test_blank_and_noisy_samples():
    good = [(100, 1.4), (200, 1.5)]
    assert signs.artefacts(facts(picture_bytes=good)) is None
    assert "blank" in signs.artefacts(facts(picture_bytes=[*good, (300, 0.004)])).text
    assert "noise" in signs.artefacts(facts(picture_bytes=[*good, (300, 2.99)])).text
    assert signs.artefacts(facts(picture_bytes=[(100, 2.99)])) is None


def test_the_worst_comes_first():
    found = signs.signs(facts(status="failed", reason="a defect", losses=FALLING, nan_steps=[3]))
    levels = [sign.level for sign in found]
    assert levels == sorted(levels, key=["bad", "warning", "note", "good"].index)
    assert found[0].key == "ended" and "a defect" in found[0].text
