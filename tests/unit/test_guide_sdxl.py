"""The SDXL guide's train_lora.py: which options of ours its options are."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from trainpilot.cli import train
from trainpilot.errors import PilotError
from trainpilot.guides.sdxl import PRECISION, options


def parsed(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    train.arguments(parser)
    return parser.parse_args(given)


def test_the_guides_two_forms(tmp_path: Path) -> None:
    (tmp_path / "training_config.yaml").write_text("lora_rank: 8\n")
    given = ["--config", "training_config.yaml", "--hub_model_id", "me/zorp", "--gradient_checkpointing"]
    plain = parsed(options(tmp_path, given, {}))
    assert plain.config_option == str(tmp_path / "training_config.yaml")
    assert {"saving.hub_model_id=me/zorp", "memory.gradient_checkpointing=true"} < set(plain.overrides)
    assert not [one for one in plain.overrides if one.startswith("precision")]
    launched = parsed(options(tmp_path, given, {PRECISION: "fp16"}))
    assert set(launched.overrides) - set(plain.overrides) == {"precision.mixed=fp16"}
    # Without --mixed_precision, accelerate says "no" to every process: the file's own value stays then.
    assert parsed(options(tmp_path, given, {PRECISION: "no"})).overrides == plain.overrides


def test_a_precision_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PilotError, match="fp8"):
        options(tmp_path, ["--config", "a.yaml"], {PRECISION: "fp8"})


def test_what_is_set_last_wins(tmp_path: Path) -> None:
    overrides = parsed(options(tmp_path, ["--config", "a", "--set", "training.steps=3"], {PRECISION: "bf16"})).overrides
    assert overrides[-1] == "training.steps=3"
