"""The event reader and its lines: what `history` says, read once, in slices, and decimated without losing extremes."""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlpilot.views.course import METRICS, Course, Courses
from controlpilot.views.series import BUCKETS, series
from trainpilot.errors import PilotError
from trainpilot.runs.events import EventLog, history

ATTEMPTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30), st.booleans()), min_size=1, max_size=5)


def written(path, attempts, segment_bytes=2000):
    """Attempts of (from_step, number of steps, whether a rollback by half follows)."""
    for number, (first, count, rollback) in enumerate(attempts, 1):
        log = EventLog(path, number, segment_bytes=segment_bytes)
        log.append("start", from_step=first, of=80)
        for step in range(first, first + count):
            log.append("step", step=step, loss=number + step / 1000, lr=1e-4)
        if count and rollback:
            for step in range(first + count // 2, first + count):
                log.append("step", step=step, loss=number + 0.5, lr=1e-5)
        log.close()


@given(ATTEMPTS)
@settings(max_examples=60)
def test_the_steps_are_those_of_history(tmp_path_factory, attempts):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    written(path, attempts)
    expected = [(event["step"], event["loss"]) for event in history(path) if event["kind"] == "step"]
    course = Course(path)
    course.advance(60)
    assert course.complete
    found = list(zip(course.told_steps.tolist(), course.values_of("loss").tolist(), strict=True))
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected])


def test_reading_in_slices_gives_what_reading_at_once_gives(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    written(path, [(1, 300, True), (120, 300, False)])
    whole, sliced = Course(path), Course(path)
    whole.advance(60)
    monkeypatch.setattr("controlpilot.views.course._CHUNK", 700)
    rounds = 0
    while not sliced.complete:
        sliced.advance(0)
        rounds += 1
    assert rounds > 10
    for name in METRICS:
        np.testing.assert_array_equal(whole.values_of(name), sliced.values_of(name))
    assert whole.checkpoints == sliced.checkpoints


def test_what_is_appended_is_read_alone(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    log = EventLog(path, 1, segment_bytes=4000)
    log.append("start", from_step=1, of=500)
    course, parsed = Course(path), []
    loads = json.loads
    monkeypatch.setattr("trainpilot.runs.events.json.loads", lambda line: parsed.append(line) or loads(line))
    for step in range(1, 301):
        log.append("step", step=step, loss=0.1)
        if step % 50 == 0:
            course.advance(60)
            assert course.points == step
    assert len([line for line in parsed if b'"step"' in line]) == 300  # each line once, over all cuts


def test_an_emptied_file_begins_again_and_the_client_is_told(tmp_path):
    path = tmp_path / "events.jsonl"
    written(path, [(1, 50, False)], 1 << 20)
    course = Course(path)
    course.advance(60)
    known = series("x", course).after
    path.write_text("")
    written(path, [(1, 3, False)], 1 << 20)
    course.advance(60)
    assert course.points == 3
    assert series("x", course, after=known).first == 0


def test_lines_keep_every_extreme_of_a_long_run(tmp_path):
    path = tmp_path / "events.jsonl"
    log, noise = EventLog(path, 1), random.Random(4)
    log.append("start", from_step=1, of=9000)
    losses = [noise.random() for _ in range(7013)]
    losses[3333], losses[6000] = 55.0, -3.0
    for step, loss in enumerate(losses, 1):
        log.append("step", step=step, loss=loss)
    course = Course(path)
    course.advance(60)
    drawn = series("x", course)
    assert len(drawn.steps) <= BUCKETS and drawn.each == 16
    assert max(drawn.lines["loss_high"]) == 55 and min(drawn.lines["loss_low"]) == -3
    assert drawn.steps[-1] == 7013
    lengths = {len(values) for values in drawn.lines.values()}
    assert lengths == {len(drawn.steps)}
    close = series("x", course, from_step=3330, to_step=3340)
    assert close.each == 1 and 55.0 in close.lines["loss"] and close.steps == list(range(3330, 3341))


@given(st.lists(st.integers(0, 90), min_size=1, max_size=25), st.integers(0, 24))
@settings(max_examples=40)
def test_a_client_that_asks_for_news_has_what_one_that_asks_for_all_has(tmp_path_factory, portions, rollback_at):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    log, course = EventLog(path, 1), Course(path)
    log.append("start", from_step=1, of=2000)
    steps, lows, after, step = [], [], None, 0
    for number, portion in enumerate(portions):
        if number == rollback_at:
            step = step // 2
        for _ in range(portion):
            step += 1
            log.append("step", step=step, loss=(step * 7919) % 101 / 10)
        course.advance(60)
        news = series("x", course, after=after, buckets=16)
        del steps[news.first :], lows[news.first :]
        steps += news.steps
        lows += news.lines.get("loss_low", news.lines.get("loss", []))
        after = news.after
        everything = series("x", course, buckets=16)
        assert steps == everything.steps
        assert lows == everything.lines.get("loss_low", everything.lines.get("loss", []))


def test_numbers_that_are_none_are_null_and_a_line_that_is_not_told_is_left_out(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", 1)
    for step, loss in enumerate([0.1, float("nan"), 0.3], 1):
        log.append("step", step=step, loss=loss)
    course = Course(tmp_path / "events.jsonl")
    course.advance(60)
    drawn = series("x", course)
    assert drawn.lines == {"loss": [0.1, None, 0.3]}
    assert course.nan_steps == [2]
    drawn.model_dump_json()


@pytest.mark.parametrize("after", ["", "1", "1.2", "a.b.c", "1.2.3.4", "-1.0.0", "9999999999.0.0"])
def test_a_made_up_place_is_refused(tmp_path, after):
    with pytest.raises(PilotError):
        series("x", Course(tmp_path / "events.jsonl"), after=after)


def test_hostile_lines_do_no_harm(tmp_path):
    path = tmp_path / "events.jsonl"
    lines = [
        '{"kind": "step"}', '{"kind": "step", "step": true}', '{"kind": "step", "step": "9"}', '{"kind": 5}', "[]", "x",
        '{"kind": "checkpoint", "step": null}', '{"kind": "start", "from_step": "x", "t": "y"}',
        '{"kind": "step", "step": 4, "loss": "low", "lr": [1], "epoch": {}}', '{"kind": "plan", "steps": "many"}',
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    course = Course(path)
    course.advance(60)
    assert course.told_steps.tolist() == [4] and course.of == 0
    assert series("x", course).lines == {}


def test_a_million_steps_are_read_in_slices_and_then_cost_what_a_hundred_do(tmp_path):
    """Here with a fifth of a million; benchmarks/panel.py has the whole."""
    path = tmp_path / "run" / "events.jsonl"
    path.parent.mkdir()
    with path.open("w") as file:
        file.writelines(
            f'{{"t": {step}, "attempt": 1, "kind": "step", "step": {step}, "loss": 0.5}}\n'
            for step in range(1, 200_001)
        )
    courses = Courses()
    course, longest, looks = Course(path), 0.0, 0
    while looks == 0 or not course.complete:
        began = time.perf_counter()
        course = courses.read(path.parent, 0.05)
        longest, looks = max(longest, time.perf_counter() - began), looks + 1
    assert course.points == 200_000 and looks > 2
    after = series("x", course).after
    with path.open("a") as file:
        file.write('{"t": 200001, "attempt": 1, "kind": "step", "step": 200001, "loss": 0.5}\n')
    began = time.perf_counter()
    for _ in range(10):
        news = series("x", courses.read(path.parent, 60), after=after)
    assert len(news.steps) <= 1 and (time.perf_counter() - began) / 10 < 0.02


def test_courses_forget_the_oldest(tmp_path):
    courses = Courses(kept_steps=600)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "events.jsonl", [(1, 200, False)], 1 << 20)
        courses.read(tmp_path / name, 60)
    assert list(courses._courses) == [tmp_path / "b", tmp_path / "c"]
