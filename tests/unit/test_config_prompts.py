"""Prompt lines and prompt files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.config.prompts import Prompt, of_run, parse_prompt, read_prompts
from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError


def test_a_line_with_every_option() -> None:
    line = "a zorp, dog--like --n blurry, low --w 512 --h 768 --d 7 --s 30 --l 6.5 --g 3 --ss euler"
    assert parse_prompt(line) == Prompt("a zorp, dog--like", "blurry, low", 512, 768, 7, 30, 6.5, 3.0, "euler")


def test_what_a_line_does_not_say_is_the_default() -> None:
    default = Prompt(negative="ugly", width=64, height=64, steps=5)
    assert parse_prompt("  zorp ", default) == Prompt("zorp", "ugly", 64, 64, None, 5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --q 3", "--q"),
        ("a --w wide", "--w"),
        ("a --w 513", "8 divides"),
        ("a --s 0", "from 1 to 1000"),
        ("a --d -1", "--d"),
        ("a --l inf", "--l"),
        ("a --w", "--w"),
    ],
)
def test_a_wrong_option_is_named(line: str, message: str) -> None:
    with pytest.raises(PilotError, match=message):
        parse_prompt(line)


@given(st.text())
def test_any_line_is_a_prompt_or_a_pilot_error(line: str) -> None:
    try:
        prompt = parse_prompt(line)
    except PilotError:
        return
    assert prompt.text == prompt.text.strip()


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1),
    st.integers(1, 1024),
    st.integers(0, 2**63 - 1),
)
def test_what_is_written_is_read_again(text: str, eighth: int, seed: int) -> None:
    prompt = parse_prompt(f"{text} --w {8 * eighth} --d {seed}")
    assert (prompt.text, prompt.width, prompt.seed) == (text, 8 * eighth, seed)


def test_the_three_file_formats_say_the_same(tmp_path: Path) -> None:
    text, toml, listed = tmp_path / "p.txt", tmp_path / "p.toml", tmp_path / "p.json"
    text.write_text("# comment\n\na zorp --n blurry --w 64 --s 9\nanother --n blurry --w 128\n")
    toml.write_text(
        '[prompt]\nnegative_prompt = "blurry"\n'
        '[[prompt.subset]]\nprompt = "a zorp"\nwidth = 64\nsample_steps = 9\n'
        '[[prompt.subset]]\nprompt = "another"\nwidth = 128\n'
    )
    rows = [{"prompt": "a zorp", "negative_prompt": "blurry", "width": 64, "sample_steps": 9}]
    listed.write_text(json.dumps([*rows, "another --n blurry --w 128"]))
    expected = [Prompt("a zorp", "blurry", 64, steps=9), Prompt("another", "blurry", 128)]
    assert [read_prompts(path) for path in (text, toml, listed)] == [expected] * 3


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"promt": "x"}]', "[3]", '[{"prompt": "a", "width": true}]'])
def test_a_wrong_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(PilotError, match=r"p\.json"):
        read_prompts(path)


def test_a_run_numbers_its_prompts_and_falls_back_to_captions(tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("third\n")
    config = RunConfig.model_validate(
        {
            "buckets": {"resolution": 64},
            "sampling": {"prompts": ["first", "second --d 5"], "prompts_file": str(more), "seed": 100, "guidance": 4},
        }
    )
    found = of_run(config)
    assert [(p.text, p.seed, p.width, p.guidance) for p in found] == [
        ("first", 100, 64, 4.0),
        ("second", 5, 64, 4.0),
        ("third", 102, 64, 4.0),
    ]
    plain = RunConfig.model_validate({"sampling": {"size": [64, 96]}})
    captions = of_run(plain, ["one --w 8", "one --w 8", "two"])
    assert [(p.text, p.width, p.height) for p in captions] == [("one --w 8", 64, 96), ("two", 64, 96)]
