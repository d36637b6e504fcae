"""Errors say where, what was given, what is allowed and what to do, in every form they are shown in."""

from __future__ import annotations

import json

import pytest

from trainpilot.errors import ExitCode, PilotError, Problems, RunFailed

RANK = PilotError("network.rank", -4, "1 to 1024", "Set network.rank to 16.")
BASE = PilotError("model.base", "/nowhere", "a folder or a .safetensors file", "Name an existing one.")


def test_the_exit_codes_are_those_of_the_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "BAD_INPUT": 2,
        "FAILED": 3,
        "STOPPED": 4,
        "PREEMPTED": 5,
    }
    assert RANK.exit_code == ExitCode.BAD_INPUT
    assert RunFailed("a", "b", "c", "d").exit_code == ExitCode.FAILED


@pytest.mark.parametrize("show", [str, PilotError.text, lambda error: json.dumps(error.as_dict())])
def test_every_form_says_all_four_things(show) -> None:
    shown = show(RANK)
    for part in ("network.rank", "-4", "1 to 1024", "Set network.rank to 16."):
        assert part in shown


def test_the_json_shape_is_that_of_the_contract() -> None:
    assert RANK.as_dict() == {
        "where": "network.rank",
        "given": "-4",
        "allowed": "1 to 1024",
        "remedy": "Set network.rank to 16.",
        "message": str(RANK),
    }


def test_several_problems_are_all_shown() -> None:
    both = Problems([RANK, BASE])
    for error in (RANK, BASE):
        assert error.text() in both.text()
        assert error.message in both.message
        assert error.where in both.where
    assert both.as_dict()["problems"] == [RANK.as_dict(), BASE.as_dict()]
    assert "2 places" in both.where


def test_one_problem_reads_like_the_problem_itself() -> None:
    one = Problems(iter([RANK]))
    assert (one.where, one.text(), one.message) == (RANK.where, RANK.text(), RANK.message)


def test_no_problem_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Problems([])
