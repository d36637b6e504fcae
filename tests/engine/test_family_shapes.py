"""The full-size models on the meta device are what the cards' shapes say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainpilot.families.card import card
from trainpilot.families.construction import FOLDER
from trainpilot.families.shapes import describe, written

# speed.md and families.md, in millions of parameters
DENOISERS = {
    "sd15/configs.json": 859.5,
    "sd15/configs-2.json": 865.9,
    "sdxl/configs.json": 2567.5,
    "flux/configs.json": 11901,
    "flux/configs-schnell.json": 11891,
}


@pytest.mark.parametrize("name", sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/configs*.json")))
def test_shapes_are_those_of_the_full_size_model(name: str) -> None:
    path = FOLDER / name
    description = describe(json.loads(path.read_text()))
    assert Path(str(path).replace("configs", "shapes")).read_text() == written(description)
    assert description["parameters"]["denoiser"] / 1e6 == pytest.approx(DENOISERS[name], abs=0.5)
    assert set(description["modules"]) == set(card(path.parent.name).components)
