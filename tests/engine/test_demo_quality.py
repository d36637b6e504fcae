"""The demo's benchmark: its bound is a bound, and it runs from a run folder to its figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import demo_quality
import numpy as np
import pytest
from PIL import Image
from tiny_runs import attempt, make


def test_the_bound_is_that_of_the_normal_approximation_for_many_pairs() -> None:
    losses = np.random.default_rng(1).normal(2.0, 10.0, 2000)
    expected = losses.mean() + 1.96 * losses.std(ddof=1) / math.sqrt(len(losses))
    assert demo_quality.upper_bound(list(losses)) == pytest.approx(expected, abs=0.03)


def test_the_bound_holds_as_often_as_it_says() -> None:
    """200 pairs, few of which differ, as in the demo: a true mean of 1 point lies below it in about 97.5%."""
    rng = np.random.default_rng(2)
    drawn = rng.choice([0.0, 25.0, -25.0], p=[0.92, 0.06, 0.02], size=(300, 200))
    held = sum(demo_quality.upper_bound(list(row)) >= 1.0 for row in drawn)
    assert 0.94 <= held / 300 <= 0.995


def test_it_measures_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A random base has nothing to show: the goals are missed, and the figures say so."""
    run = make("sd15", "training.steps=1", "sampling.size=64", "sampling.steps=1")
    assert attempt(run).status == "done"
    for name, value in {"SEEDS": 2, "SCENES": 3, "BATCH": 2, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(demo_quality, name, value)
    sheet = tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["demo_quality.py", str(run.path), "--write", "--sheet", str(sheet)])
    assert demo_quality.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("figure ")][-2:] == [
        "demo_likeness_better",
        "demo_likeness_gain",
    ]
    kept = json.loads((tmp_path / "demo_quality_cpu.json").read_text())
    met = {figure["name"]: figure["met"] for figure in kept["figures"]}
    assert met["demo_zorps_known_from_scenes"] and not met["demo_likeness_better"]
    assert len(kept["gains"]) == 2 and Image.open(sheet).height == 6 * 132
