"""`trainpilot sample` from the command line, and LoRA files merged at a strength."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import FAMILIES, load, tiny
from PIL import Image

from trainpilot import cli
from trainpilot.engine.merging import merge
from trainpilot.errors import ExitCode, PilotError
from trainpilot.families.card import card, select
from trainpilot.families.registry import adapter
from trainpilot.formats import kohya
from trainpilot.formats.effect import applied
from trainpilot.formats.state import DOWN, UP, AdapterState, ModuleWeights


def _state(family: str) -> AdapterState:
    """A LoRA of rank 2 over the default targets and the first text encoder, of visible size."""
    parts = load(family)
    torch.manual_seed(5)
    state: AdapterState = {}
    for component, model, patterns in (
        ("denoiser", parts.denoiser, card(family).targets["default"]),
        ("text_encoder", parts.text_encoders[0], card(family).text_targets),
    ):
        linear = {n: m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        state[component] = {
            name: ModuleWeights(
                "lora",
                {DOWN: torch.randn(2, linear[name].shape[1]) * 0.3, UP: torch.randn(linear[name].shape[0], 2) * 0.3},
                2,
                2.0,
            )
            for name in select(linear, patterns)
        }
    return state


@pytest.mark.parametrize("family", FAMILIES)
def test_strength_goes_from_base_to_adapter(family: str) -> None:
    state, before = _state(family), load(family)
    count = sum(len(modules) for modules in state.values())
    for strength in (0.0, 0.5, 1.0):
        parts = load(family)
        assert merge(adapter(family), parts, state, strength) == count
        for component, model, base in (
            ("denoiser", parts.denoiser, before.denoiser),
            ("text_encoder", parts.text_encoders[0], before.text_encoders[0]),
        ):
            for name, weights in state[component].items():
                plain = base.get_submodule(name).weight
                expected = plain + strength * (applied(plain, weights) - plain)
                torch.testing.assert_close(model.get_submodule(name).weight, expected)


def test_a_lora_of_another_base_is_refused() -> None:
    weights = ModuleWeights("lora", {DOWN: torch.ones(1, 3), UP: torch.ones(5, 1)}, 1, 1.0)
    name = next(iter(_state("sd15")["denoiser"]))
    with pytest.raises(PilotError, match="does not fit"):
        merge(adapter("sd15"), load("sd15"), {"denoiser": {name: weights}})
    with pytest.raises(PilotError, match="no such module"):
        merge(adapter("sd15"), load("sd15"), {"denoiser": {"nowhere.to_q": weights}})


def _pictures(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[np.ndarray]:
    assert cli.main(["sample", *arguments, "--steps", "2", "--size", "16", "--json"]) == ExitCode.DONE
    paths = json.loads(capsys.readouterr().out)["pictures"]
    return [np.asarray(Image.open(path)).astype(int) for path in paths]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_from_the_command_line(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zorp.safetensors"
    kohya.write(file, family, _state(family), {}, torch.float32)
    base = ["a zorp --d 3", "--base", str(tiny(family)), "--out", str(tmp_path / "out")]
    [plain] = _pictures(capsys, *base)
    [again] = _pictures(capsys, *base)
    [none] = _pictures(capsys, *base, "--lora", f"{file}:0")
    [full] = _pictures(capsys, *base, "--lora", str(file))
    assert plain.shape == (16, 16, 3)
    assert (plain == again).all() and (plain == none).all()
    assert np.abs(full - plain).mean() > 1
    assert len(list((tmp_path / "out").iterdir())) == 4  # nothing is overwritten


def test_seeds_count_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = _pictures(
        capsys, "a zorp", "--count", "2", "--seed", "9", "--base", str(tiny("sd15")), "--out", str(tmp_path)
    )
    assert (both[0] != both[1]).any()
    assert sorted(Image.open(path).text["seed"] for path in tmp_path.iterdir()) == ["10", "9"]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ([], "prompts"),
        (["a zorp", "--sampler", "flow_euler"], "--sampler"),
        (["a zorp", "--size", "tall"], "--size"),
        (["a zorp", "--count", "0"], "--count"),
        (["a zorp", "--lora", "nowhere.safetensors"], "--lora"),
        (["a zorp --x 3"], "prompt"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["sample", *arguments, "--base", str(tiny("sd15")), "--json"])
    assert code == ExitCode.BAD_INPUT
    assert json.loads(capsys.readouterr().out)["error"]["where"] == where


def test_a_lora_of_another_family_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zorp.safetensors"
    kohya.write(file, "flux", _state("flux"), {}, torch.float32)
    code = cli.main(["sample", "a zorp", "--base", str(tiny("sd15")), "--lora", str(file), "--json"])
    assert code == ExitCode.BAD_INPUT
    assert "flux" in json.loads(capsys.readouterr().out)["error"]["given"]
