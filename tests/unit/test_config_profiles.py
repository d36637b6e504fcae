"""The built-in profiles are valid and hold the values that the guides name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from light_bases import flux_folder, sd_folder

from trainpilot.config.merge import Resolved, resolve
from trainpilot.profiles import FOLDER, about, profiles
from trainpilot.workspace import Workspace


def by_profile(tmp_path: Path, name: str, flux: bool = False) -> Resolved:
    workspace = Workspace(tmp_path)
    (workspace.datasets / "images" / "1_a").mkdir(parents=True)
    (flux_folder if flux else sd_folder)(workspace.models / "base")
    direct: dict[str, object] = {"model.base": "base", "datasets": [{"path": "1_a"}]}
    return resolve(workspace, profile=name, direct=direct)


FAST = {
    "buckets.resolution": 512,
    "buckets.enabled": True,
    "buckets.min_side": 256,
    "buckets.max_side": 768,
    "training.steps": 1500,
    "training.gradient_accumulation": 4,
    "network.rank": 32,
    "network.alpha": 32.0,
    "network.dropout": 0.0,
    "optimizer.learning_rate": 1e-4,
    "schedule.name": "constant_with_warmup",
    "schedule.warmup_steps": 100,
    "noise.offset": 0.05,
    "loss.min_snr_gamma": 0.0,
}
FINAL = {
    "buckets.resolution": 768,
    "buckets.enabled": True,
    "buckets.min_side": 384,
    "buckets.max_side": 1024,
    "training.steps": 2500,
    "training.gradient_accumulation": 4,
    "network.rank": 64,
    "network.alpha": 64.0,
    "network.dropout": 0.1,
    "optimizer.learning_rate": 1e-4,
    "schedule.name": "cosine_with_restarts",
    "schedule.warmup_steps": 500,
    "noise.offset": 0.1,
    "loss.min_snr_gamma": 5.0,
}
BOTH = {"precision.mixed": "bf16", "text_encoder.train": False, "memory.gradient_checkpointing": True}


def values(resolved: Resolved, paths: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for path in paths:
        value: Any = resolved.config
        for key in path.split("."):
            value = getattr(value, key)
        found[path] = value
    return found


@pytest.mark.parametrize(("name", "expected"), [("flux_fast", FAST | BOTH), ("flux_final", FINAL | BOTH)])
def test_the_flux_profiles_are_the_guides(tmp_path: Path, name: str, expected: dict[str, Any]) -> None:
    resolved = by_profile(tmp_path, name, flux=True)
    assert values(resolved, expected) == expected


@pytest.mark.parametrize(("name", "steps"), [("quick_test", 100), ("standard", 1500), ("quality", 3000)])
def test_the_three_wizard_profiles_have_their_lengths(tmp_path: Path, name: str, steps: int) -> None:
    assert by_profile(tmp_path, name).config.training.steps == steps


def test_standard_holds_the_workflow_guides_values(tmp_path: Path) -> None:
    expected = {
        "training.batch_size": 1,
        "network.type": "lora",
        "network.rank": 32,
        "network.alpha": 32.0,
        "network.conv_rank": 0,
        "optimizer.name": "adamw8bit",
        "optimizer.learning_rate": 1e-4,
        "schedule.name": "cosine",
        "buckets.enabled": True,
        "memory.gradient_checkpointing": True,
        "cache.latents": True,
        "precision.save": "fp16",
        "sampling.every_steps": 100,
        "saving.every_steps": 100,
        "sampling.sampler": "dpmpp_2m_karras",
    }
    assert values(by_profile(tmp_path, "standard"), expected) == expected


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_profile_says_what_it_is_and_opens_with_its_command(tmp_path: Path, path: Path) -> None:
    said = about(path)
    assert said.label != said.name and said.help
    assert path.read_text().startswith(f"# trainpilot train --profile {path.stem} ")
    sources = set(by_profile(tmp_path, path.stem).sources.values())
    assert f"profile {path.stem}" in sources


def test_a_persons_own_profile_wins_over_a_built_in_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.profiles.mkdir(parents=True)
    mine = workspace.profiles / "standard.toml"
    mine.write_text('[profile]\nlabel = "Mine"\n[training]\nsteps = 7\n')
    assert profiles(workspace)["standard"] == mine
    assert by_profile(tmp_path, "standard").config.training.steps == 7
