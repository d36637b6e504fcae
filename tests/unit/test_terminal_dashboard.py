"""The dashboard of a run in a terminal: what it takes from the files, and how it draws a loss."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trainpilot.runs.dashboard import Dashboard, follow, sparkline
from trainpilot.runs.events import EventLog
from trainpilot.runs.state import StateFile

finite = st.floats(-1e6, 1e6)


@given(st.lists(finite, min_size=1), st.integers(1, 200))
def test_a_line_has_a_mark_for_each_share_and_reaches_both_ends(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    if len(values) <= width and max(values) - min(values) > 1e-3:
        assert line[values.index(min(values))] == "▁"
        assert line[values.index(max(values))] == "█"


def test_a_line_falls_where_the_loss_falls() -> None:
    line = sparkline([1 / (1 + step) for step in range(1000)] + [math.nan], 20)
    assert list(line) == sorted(line, reverse=True)
    assert sparkline([math.nan], 20) == ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "zorp"
    path.mkdir()
    log = EventLog(path / "events.jsonl", attempt=1)
    log.append("start", from_step=1, of=100)
    for step in range(1, 41):
        log.append("step", step=step, loss=1 / step, loss_avg=1 / step, lr=1e-4, it_s=2.5, images_s=5.0, grad_norm=0.25)
    log.append("sample", step=40, file="step-00000040_p0.png")
    log.append("checkpoint", step=40, folder="step-00000040")
    log.append("warning", text="[b]one caption[/b] is empty")
    log.attempt = 2
    log.append("start", from_step=31, of=100)
    log.append("step", step=31, loss=0.5, loss_avg=0.5, lr=9e-5, it_s=2.0, images_s=4.0, grad_norm=0.5)
    log.close()
    StateFile(path / "state.json").write("train", 31, 100, eta=130.0, force=True)
    return path


def shown(folder: Path, width: int) -> str:
    board = Dashboard(folder)
    board.look()
    console = Console(file=io.StringIO(), width=width)
    console.print(board.render(width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 120])
def test_it_shows_where_the_run_is(folder: Path, width: int) -> None:
    text = shown(folder, width)
    for words in ("zorp", "train", "31 of 100", "31%", "2:10 left", "loss 0.5000", "9.00e-05", "[b]one caption[/b]"):
        assert words in text, words
    assert str(folder / "samples" / "step-00000040_p0.png") in text.replace("\n", "").replace("│", "").replace(" ", "")
    assert all(len(line) <= width for line in text.splitlines())


def test_steps_that_a_later_attempt_does_again_are_dropped(folder: Path) -> None:
    assert "step 1: 1.0000   step 31: 0.5000" in shown(folder, 120)


def test_without_a_terminal_it_prints_a_line_for_each_change(folder: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    follow(folder, console, going=lambda: False)
    assert console.file.getvalue() == "train  31/100  loss 0.5000  2:10 left\n"  # type: ignore[attr-defined]


def test_a_run_that_has_written_nothing_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    text = shown(tmp_path / "new", 80)
    assert "no step yet" in text
    assert "being made" in text
