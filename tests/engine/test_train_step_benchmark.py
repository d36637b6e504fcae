"""benchmarks/train_step.py on miniatures: the same code as at full size, tried for what it says, not for speed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from _figures import MET, NOT_RUN
from _measure import Timing, in_turn
from _models import sizes, step_flops, tiny_parts
from train_step import SUITE, Case, main

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case -> row of one run over all families, by the words that were asked for."""
    out = tmp_path_factory.mktemp("benchmark") / "result.json"
    cases = [
        "sd15 baseline",
        "sd15 checkpointing",
        "sdxl batch=2 mixed baseline",
        "sdxl oom",
        "flux resolution=512 baseline tokens=16",
        "flux resolution=512 base=nf4 tokens=16",
        "flux resolution=512 base=fp8 tokens=16 optimizer=adamw8bit",
    ]
    flags = [word for case in cases for word in ("--case", case)]
    assert main(["--tiny", "--warmup", "1", "--steps", "2", "--out", str(out), *flags]) == MET
    result = json.loads(out.read_text())
    assert result["left_out"] == []
    found = result["rows"]
    assert [row["case"] for row in found] == [Case.parse(case).text() for case in cases]
    return dict(zip(cases, found, strict=True))


def test_every_row_is_measured(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["images_s"] > 0 and row["tflop"] > 0 and 0 < row["of_matmul"] < 1


def test_the_plain_loop_is_measured_where_asked_for(rows: dict[str, dict[str, Any]]) -> None:
    assert {case for case, row in rows.items() if "ratio" in row} == {case for case in rows if "baseline" in case}
    for case, row in rows.items():
        if "baseline" in case:
            assert row["ratio"] == pytest.approx(row["median_ms"] / row["plain_ms"])


def test_recomputing_activations_changes_no_loss(rows: dict[str, dict[str, Any]]) -> None:
    # The same sums in the same order, at most rearranged by the recomputation: a few roundings of fp32.
    assert rows["sd15 checkpointing"]["loss_off"] < 1e-5


def test_smaller_storage_says_how_far_it_is_off(rows: dict[str, dict[str, Any]]) -> None:
    nf4, fp8 = (rows[case]["loss_off"] for case in rows if "base=" in case)
    # fp8 has 3 bits of mantissa, half a step of which is 1/16; nf4 sixteen levels in all: coarser, but no other model.
    assert 0 < fp8 < 1 / 16
    assert 0 < nf4 < 0.5


def test_a_step_after_memory_ran_out_is_as_before(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["sdxl oom"]["recovers"] == "yes"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_has_not_passed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--case", "sd15"]) == NOT_RUN == 3
    out, err = capsys.readouterr()
    assert "no CUDA device" in err
    assert out == ""


def test_time_that_runs_out_leaves_cases_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--minutes", "0", "--case", "sd15", "--case", "flux mixed"]) == MET
    assert "left out, time ran out: flux batch=1 resolution=1024 mixed" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["sd16", "sd15 bacth=2", "sd15 batch", "sd15 compile=yes", "sd15 batch=two"])
def test_a_case_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.split()[-1].partition("=")[2] or text.split()[-1]):
        Case.parse(text)


def test_the_suite_reads_and_every_case_makes_a_configuration() -> None:
    cases = [Case.parse(line) for line in SUITE.strip().splitlines()]
    assert {case.family for case in cases} == {"sd15", "sdxl", "flux"}
    assert {case.base for case in cases} == {"full", "nf4", "int8", "fp8"}
    for case in cases:
        assert Case.parse(case.text()) == case
        config = case.config()
        assert (config.training.batch_size, config.memory.compile) == (case.batch, case.compile)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "flux"])
def test_operations_grow_with_the_batch(family: str) -> None:
    parts = tiny_parts(family, torch.float32, CPU, 0)
    config = Case.parse(f"{family} rank=4").config()
    one, three = (step_flops(parts, config, count, (32, 32), 16) for count in (1, 3))
    # What depends on the sample (all but nothing: time and text embeddings are per sample too) triples.
    assert three == 3 * one > 0


def test_mixed_buckets_keep_the_area() -> None:
    assert sizes(1024, 64, False) == [(1024, 1024)]
    mixed = sizes(1024, 64, True)
    assert len(set(mixed)) == 5
    for width, height in mixed:
        assert width % 64 == height % 64 == 0
        assert abs(width * height / 1024**2 - 1) < 0.1


def test_contenders_take_turns_and_make_equal_steps() -> None:
    order: list[str] = []
    timings = in_turn(
        {"a": lambda number: order.append(f"a{number}"), "b": lambda number: order.append(f"b{number}")},
        CPU,
        warmup=3,
        steps=7,
    )
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 7, "b": 7}
    made = {name: [int(step[1:]) for step in order if step[0] == name] for name in "ab"}
    # 3 to warm up, 2 in each of 5 rounds, then each counted step once alone and once without waiting.
    assert made["a"] == made["b"] == list(range(3 + 5 * 2 + 2 * 7))
    # Rounds of 2, 2, 1, 1 and 1 counted steps begin here; who goes first alternates.
    starts = [3, 3 + 6, 3 + 6 + 6, 3 + 6 + 6 + 4, 3 + 6 + 6 + 4 + 4]
    assert [order.index(f"a{n}") < order.index(f"b{n}") for n in starts] == [True, False, True, False, True]


def test_the_95th_percentile_is_by_nearest_rank() -> None:
    assert Timing([float(n) for n in range(1, 101)]).p95 == 95.0
    assert Timing([3.0, 1.0]).p95 == 3.0
