"""What every benchmark prints and keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from _figures import MET, MISSED, Figure, finish, table


@pytest.mark.parametrize(
    ("value", "compare", "goal", "met"),
    [(1.0, "<=", 1.05, True), (1.06, "<=", 1.05, False), (2.0, ">=", 2.0, True), (2.0, ">", 2.0, False)],
)
def test_a_goal_is_met_or_missed(value: float, compare: str, goal: float, met: bool) -> None:
    assert Figure("a", value, "x", compare, goal).met is met


def test_what_could_not_be_measured_is_not_a_pass() -> None:
    assert not Figure("a", math.nan, "x", "<=", 1.0).met
    assert Figure("a", math.nan, "x").met  # reported, without a goal


def test_the_last_lines_are_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = [Figure("overhead", 1.0234567, "x", "<=", 1.05), Figure("speed", 12.5, "images/s")]
    out = tmp_path / "results" / "result.json"
    assert finish("demo", figures, [{"case": "a", "ms": 1.5}], out=out, note="n") == MET
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["figure overhead 1.02346 x goal <= 1.05", "figure speed 12.5 images/s"]
    kept = json.loads(out.read_text())
    assert kept["benchmark"] == "demo" and kept["note"] == "n" and kept["date"]
    assert kept["machine"]["cores"] >= 1
    assert kept["rows"] == [{"case": "a", "ms": 1.5}]
    assert [figure["met"] for figure in kept["figures"]] == [True, True]
    assert sorted(path.name for path in out.parent.iterdir()) == ["result.json"]


def test_one_missed_goal_is_a_failure() -> None:
    good, bad = Figure("a", 1, "x", "<=", 2), Figure("b", 3, "x", "<=", 2)
    assert finish("demo", [good, bad], [], out=None) == MISSED


def test_columns_line_up_and_gaps_show() -> None:
    text = table([{"case": "short", "ms": 1.23456}, {"case": "much longer", "gib": 20000.7}])
    assert text.splitlines() == ["case         ms     gib", "short        1.235  -", "much longer  -      20001"]
