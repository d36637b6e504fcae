"""Cards are complete, agree with the schema and with Kohya's module counts, and need no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError
from trainpilot.families.card import card, cards, select

FAMILIES = sorted(cards())


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _settings(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_the_three_families_are_found() -> None:
    assert {"sd15", "sdxl", "flux"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_without_effect_exist_and_say_why(family: str) -> None:
    known = set(_settings(RunConfig))
    variants = [None, *card(family).variants]
    for variant in variants:
        for setting, reason in card(family).variant(variant).no_effect.items():
            assert setting in known
            assert len(reason) > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_valid_configuration(family: str) -> None:
    RunConfig.model_validate(card(family).defaults)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pattern_of_a_preset_selects_something(family: str) -> None:
    about = card(family)
    names = about.shapes()["denoiser"]
    assert "default" in about.targets
    for preset, patterns in about.targets.items():
        for pattern in patterns:
            assert select(names, [pattern]), f"{preset}: {pattern}"
    for encoder in about.text_encoders:
        if encoder["trainable"]:
            assert len(select(about.shapes()[encoder["component"]], about.text_targets)) == 6 * encoder["layers"]


# families.md: the example trainers' targets; kohya.md: what sd-scripts covers. FLUX's 304 fused modules are 494 here:
# two qkv of three in each of 19 double blocks, and linear1 of four in each of 38 single blocks.
@pytest.mark.parametrize(
    ("family", "preset", "count"),
    [
        ("sd15", "default", 128),
        ("sd15", "kohya", 192),
        ("sdxl", "default", 560),
        ("sdxl", "kohya", 722),
        ("flux", "default", 342),
        ("flux", "kohya", 304 + 19 * 2 * 2 + 38 * 3),
    ],
)
def test_module_counts(family: str, preset: str, count: int) -> None:
    about = card(family)
    assert len(select(about.shapes()["denoiser"], about.patterns(preset))) == count


# speed.md: trainable parameters at rank 16 on the default targets, in millions
@pytest.mark.parametrize(("family", "millions"), [("sd15", 3.19), ("sdxl", 23.2), ("flux", 44.8)])
def test_adapter_sizes(family: str, millions: float) -> None:
    shapes = card(family).shapes()["denoiser"]
    chosen = select(shapes, card(family).patterns("default"))
    assert sum(16 * sum(shapes[name][:2]) for name in chosen) / 1e6 == pytest.approx(millions, rel=5e-3)


def test_variants_replace_what_differs() -> None:
    assert card("sd15").variant("2").shapes("2")["denoiser"] != card("sd15").shapes()["denoiser"]
    assert card("sd15").variant("2").prediction == "v_prediction"
    assert card("sd15").variant("1") is card("sd15")
    schnell = card("flux").variant("schnell")
    assert "noise.guidance" in schnell.no_effect and "loss.debiased" in schnell.no_effect
    assert "noise.guidance" not in card("flux").no_effect


def test_patterns_end_at_a_dot_or_match_whole() -> None:
    names = ["a.to_q", "a.not_to_q", "b.0.proj_out", "proj_out"]
    assert select(names, ["to_q"]) == ["a.to_q"]
    assert select(names, ["b.*.proj_out"]) == ["b.0.proj_out"]
    assert select(names, ["proj_out"]) == ["b.0.proj_out", "proj_out"]


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(PilotError, match="sdxl"):
        card("sd16")
    with pytest.raises(PilotError, match="with_conv"):
        card("sd15").patterns("everything")


def test_cards_need_no_torch() -> None:
    code = "import sys; from trainpilot.families.card import card; card('flux').shapes(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
