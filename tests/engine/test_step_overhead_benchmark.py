"""benchmarks/step_overhead.py on a miniature: tried for what it says, not for speed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from step_overhead import main


def test_both_loops_are_measured_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "result.json"
    main(["--steps", "2", "--case", "flux", "--threads", str(torch.get_num_threads()), "--out", str(out)])
    result = json.loads(out.read_text())
    figures = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert len(figures) == 8 and all(math.isfinite(value) for value in figures.values())
    rows = {row["part"]: row for row in result["rows"] if row["case"] == "flux"}
    for part in ("forward", "backward", "optimizer", "host", "whole"):
        assert rows[part]["bare ms, work"] > 0 and rows[part]["engine ms, work"] > 0, part
    # What the bare loop does not have is named apart.
    for part in ("ema", "clipping", "logging", "stop, requests"):
        assert rows[part]["engine ms, work"] > 0 and rows[part]["bare ms, work"] is None, part
    # The headline is what the rows say.
    whole = rows["whole"]
    assert figures["flux_wall_ratio"] == pytest.approx(whole["engine ms, wall"] / whole["bare ms, wall"], rel=1e-3)
    host = rows["host"]
    added = host["engine ms, wall"] - host["bare ms, wall"]
    assert figures["flux_host_wall"] == pytest.approx(added, abs=1e-3)
