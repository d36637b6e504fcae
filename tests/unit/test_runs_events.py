"""Events: what was appended is read back whole, whatever was torn, cut into segments, or gone over again."""

import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpilot.errors import PilotError
from trainpilot.runs import segments
from trainpilot.runs.events import EventLog, history, read

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def everything(path, limit=1 << 20):
    found, cursor = [], segments.START
    while True:
        events, cursor = read(path, cursor, limit)
        if not events:
            return found
        found += events


@given(st.lists(VALUES, max_size=12), st.integers(60, 400), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_every_event_comes_back_once_in_order_over_all_segments(tmp_path_factory, values, segment_bytes, limit):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    log = EventLog(path, attempt=3, segment_bytes=segment_bytes)
    for value in values:
        log.append("thing", value=value)
    found = everything(path, limit)
    assert [event["value"] for event in found] == values
    assert {event["attempt"] for event in found} <= {3}


@given(st.lists(st.integers(0, 999), min_size=1, max_size=8), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_torn_last_line_is_skipped_and_the_next_writer_goes_on_after_it(tmp_path_factory, numbers, cut):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    log = EventLog(path)
    for number in numbers:
        log.append("thing", number=number)
    log.close()
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    # Cut anywhere inside the last line: before its end, the line has no line break and may be half a character.
    path.write_bytes(whole[: last + cut % (len(whole) - last)])
    torn = path.read_bytes()
    events, cursor = read(path)
    assert [event["number"] for event in events] == numbers[:-1]
    again = EventLog(path)
    again.append("thing", number=-1)
    later, _ = read(path, cursor)
    complete = torn.endswith(b"}")  # only the line break was missing: with it, the event is whole after all
    assert [event["number"] for event in later] == ([numbers[-1]] if complete else []) + [-1]


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_at_all_are_read_without_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    path.write_bytes(data)
    EventLog(path).append("thing", number=1)
    found = everything(path)
    assert found[-1]["number"] == 1
    assert all(isinstance(event["kind"], str) for event in history(path))


def test_a_torn_end_of_a_finished_segment_does_not_hold_the_reader_up(tmp_path):
    path = tmp_path / "events.jsonl"
    (tmp_path / "events.1.jsonl").write_text('{"kind": "a"}\n{"kind": "to')
    path.write_text('{"kind": "b"}\n')
    assert [event["kind"] for event in everything(path)] == ["a", "b"]


def test_an_unfinished_line_is_read_when_it_is_complete(tmp_path):
    path = tmp_path / "events.jsonl"
    with path.open("ab", buffering=0) as file:
        file.write(b'{"kind": "a"}\n{"kind": ')
        events, cursor = read(path)
        assert [event["kind"] for event in events] == ["a"]
        assert read(path, cursor) == ([], cursor)
        file.write(b'"b"}\n')
        assert [event["kind"] for event in read(path, cursor)[0]] == ["b"]


def test_a_reader_beside_a_cutting_writer_sees_every_event_once(tmp_path):
    path, count = tmp_path / "events.jsonl", 600

    def write():
        log = EventLog(path, segment_bytes=300)  # about four events a segment
        for number in range(count):
            log.append("thing", number=number)

    writer = threading.Thread(target=write)
    writer.start()
    seen, cursor = [], segments.START
    while len(seen) < count and (writer.is_alive() or read(path, cursor)[0]):
        events, cursor = read(path, cursor, 200)
        seen += [event["number"] for event in events]
    writer.join()
    assert seen == list(range(count))
    assert len(segments.archived(path)) > 100


def test_a_cut_between_a_readers_two_looks_neither_loses_nor_doubles(tmp_path, monkeypatch):
    path, real = tmp_path / "events.jsonl", segments.archived
    path.write_bytes(b"first segment")

    def cut_first(live):
        monkeypatch.setattr(segments, "archived", real)
        segments.rotate(live)
        live.write_bytes(b"second")
        return real(live)

    monkeypatch.setattr(segments, "archived", cut_first)  # the reader has opened the live file when it asks for these
    data, cursor, finished = segments.read(path)
    assert (data, cursor, finished) == (b"first segment", "1:13", True)
    assert segments.read(path, cursor) == (b"second", "2:6", False)


def test_numbers_that_are_no_numbers_and_secrets_do_not_get_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_canary_value")
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("step", step=1, loss=float("nan"), lr=[float("inf"), 1.0])
    log.append("warning", text="403 for token hf_planted_canary_value", where=tmp_path)
    step, warning = everything(path)
    assert (step["loss"], step["lr"]) == (None, [None, 1.0])
    assert warning["where"] == str(tmp_path)
    assert "canary" not in path.read_text()
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_history_takes_what_was_gone_over_again_from_the_later_attempt(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", attempt=1)
    log.append("start", from_step=1)
    for step in range(1, 8):
        log.append("step", step=step, loss=1.0)
        if step in (4, 7):
            log.append("sample", step=step)
    log.append("warning", text="kept")
    log.attempt = 2
    log.append("start", from_step=5)
    for step in (5, 6):
        log.append("step", step=step, loss=2.0)
    found = history(log.path)
    assert [(e["step"], e["attempt"]) for e in found if e["kind"] == "step"] == [
        (1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2),
    ]  # fmt: skip
    assert [(e["step"], e["attempt"]) for e in found if e["kind"] == "sample"] == [(4, 1)]
    assert [e["text"] for e in found if e["kind"] == "warning"] == ["kept"]


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_history_equals_the_rule_applied_literally(tmp_path_factory, attempts):
    log = EventLog(tmp_path_factory.mktemp("run") / "events.jsonl")
    course = {}
    for attempt, (from_step, made) in enumerate(attempts, start=1):
        log.attempt = attempt
        log.append("start", from_step=from_step)
        course = {step: who for step, who in course.items() if step < from_step}
        for step in range(from_step, from_step + made):
            log.append("step", step=step)
            course[step] = attempt
    found = {event["step"]: event["attempt"] for event in history(log.path) if event["kind"] == "step"}
    assert found == course


def test_a_rollback_inside_an_attempt_goes_back(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", attempt=1)
    for step, loss in [(1, 1.0), (2, 1.0), (3, 1.0), (2, 0.5)]:
        log.append("step", step=step, loss=loss)
    log.append("sample", step=1)  # told late: it drops nothing
    steps = [(event["step"], event["loss"]) for event in history(log.path) if event["kind"] == "step"]
    assert steps == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("cursor", ["", "1", "1:", "-1:0", "1:0:0", "../x:1", "1:1" + "0" * 40])
def test_a_cursor_of_ones_own_making_is_refused(tmp_path, cursor):
    with pytest.raises(PilotError, match="cursor"):
        read(tmp_path / "events.jsonl", cursor)


def test_appending_is_one_write_and_cheap(tmp_path, monkeypatch):
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: writes.append(data) or real(handle, data))
    log = EventLog(tmp_path / "events.jsonl")
    for step in range(20):
        log.append("step", step=step)
    assert len(writes) == 20 and all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in writes)
