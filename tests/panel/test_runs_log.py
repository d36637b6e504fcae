"""The log reader: every line once, whatever the windows, cuts and sizes; and never more bytes than its budget."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlpilot.views import logreader
from trainpilot.errors import PilotError
from trainpilot.runs import segments

WORDS = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=30), min_size=1, max_size=30)


def made(folder: Path, lines: list[str], cuts: int) -> Path:
    """A log of these lines in about `cuts` segments."""
    path = folder / "log.txt"
    every = max(1, len(lines) // (cuts + 1))
    for number, line in enumerate(lines, 1):
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")
        if cuts and number % every == 0 and number < len(lines):
            segments.rotate(path)
    return path


@given(WORDS, st.integers(0, 3), st.integers(256, 600))
def test_forwards_every_line_comes_once(tmp_path_factory, words, cuts, limit):
    words = [logreader._clean(word.encode()) for word in words]
    path = made(tmp_path_factory.mktemp("log"), words, cuts)
    cursor, found = segments.START, []
    while (part := logreader.after(path, cursor, limit)).end != cursor:
        found += part.lines
        cursor = part.end
    assert found == words


@given(WORDS, st.integers(0, 3), st.integers(256, 600))
def test_backwards_every_line_comes_once(tmp_path_factory, words, cuts, limit):
    words = [logreader._clean(word.encode()) for word in words]
    path = made(tmp_path_factory.mktemp("log"), words, cuts)
    part = logreader.tail(path, limit)
    found = part.lines
    while part.more_before:
        part = logreader.before(path, part.start, limit)
        found = part.lines + found
    assert found == words


def test_an_unfinished_line_is_shown_once_and_completed_later(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"one\ntwo")
    part = logreader.tail(path)
    assert (part.lines, part.partial) == (["one"], "two")
    with path.open("ab") as file:
        file.write(b" and a half\nthree\n")
    more = logreader.after(path, part.end)
    assert (more.lines, more.partial) == (["two and a half", "three"], "")


def test_a_log_that_is_cut_between_two_looks_loses_no_line(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("one\n")
    cursor = logreader.tail(path).end
    with path.open("a") as file:
        file.write("two\n")
    segments.rotate(path)
    path.write_text("three\n")
    first = logreader.after(path, cursor)
    assert first.lines + logreader.after(path, first.end).lines == ["two", "three"]


def test_an_emptied_log_begins_again(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("something long\n")
    cursor = logreader.tail(path).end
    path.write_text("new\n")
    assert logreader.after(path, cursor).lines == ["new"]


def test_what_a_terminal_hides_is_hidden(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"\x1b[31mred\x1b[0m\n 10%\r 50%\r100%\nbell\x07 \x00nul\n")
    assert logreader.tail(path).lines == ["red", "100%", "bell nul"]


def test_a_missing_log_is_an_empty_one(tmp_path):
    part = logreader.tail(tmp_path / "log.txt")
    assert (part.lines, part.size, part.more_before) == ([], 0, False)
    assert logreader.after(tmp_path / "log.txt", part.end).lines == []
    assert logreader.search(tmp_path / "log.txt", "x").matches == []


def test_a_search_finds_every_line_newest_first_and_where_it_stands(tmp_path):
    path = made(tmp_path, [f"line {number} {'needle' if number % 7 == 0 else 'hay'}" for number in range(500)], 2)
    found, cursor = [], None
    while True:
        answer = logreader.search(path, "NEEDLE", cursor, limit=10)
        found += answer.matches
        cursor = answer.next
        if cursor is None:
            break
    assert [match.line for match in found] == [f"line {number} needle" for number in range(497, -1, -7)]
    for match in found[::9]:
        assert logreader.after(path, match.at).lines[0] == match.line


@pytest.mark.parametrize("needle", ["", "  ", "x" * 201])
def test_a_search_for_nothing_or_too_much_is_refused(tmp_path, needle):
    with pytest.raises(PilotError):
        logreader.search(tmp_path / "log.txt", needle)


@pytest.mark.parametrize("cursor", ["", "x", "1:2:3", "-1:0", "../etc:1", "1:99999999999999999999"])
def test_a_made_up_cursor_is_refused(tmp_path, cursor):
    for call in (logreader.after, logreader.before):
        with pytest.raises(PilotError):
            call(tmp_path / "log.txt", cursor)


def test_a_gigabyte_costs_what_a_kilobyte_does(tmp_path):
    path = tmp_path / "log.txt"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # sparse: no line break in it, the worst case
        file.seek(1 << 30)
        file.write(b"\nthe last line\n")
    began = time.perf_counter()
    part = logreader.tail(path)
    assert part.lines[-1] == "the last line" and part.more_before
    older = logreader.before(path, part.start)
    assert older.start != part.start
    answer = logreader.search(path, "not there")
    assert answer.looked_through <= logreader.SEARCH_BUDGET + (1 << 20) and answer.next
    assert time.perf_counter() - began < 2
