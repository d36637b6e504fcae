"""The FLUX identity guide's scripts: one command from profile and environment, and a validator that can fail."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from light_bases import flux_folder
from PIL import Image

from trainpilot.cli._options import resolve
from trainpilot.cli.train import arguments
from trainpilot.config.merge import Resolved
from trainpilot.errors import Problems
from trainpilot.guides import validation
from trainpilot.guides.flux_identity import SETTINGS, build
from trainpilot.guides.tree import grow
from trainpilot.template import seed
from trainpilot.workspace import Workspace

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """The guide's folder as a seeded workspace has it, with two pictures and a FLUX base model."""
    part = tmp_path / "template"  # the base models of the template are not the guide's
    shutil.copytree(TEMPLATE / "lora_training", part / "lora_training")
    workspace = Workspace(tmp_path / "workspace")
    seed(part, workspace)
    grow(workspace)
    root = workspace.root / "lora_training"
    for number in range(2):
        Image.new("RGB", (64, 64), (90 * number, 80, 70)).save(root / "data" / "subject" / f"{number}.png")
        (root / "data" / "subject" / f"{number}.txt").write_text("ohwx, a portrait")
    flux_folder(workspace.models / "flux-dev")
    return root


def merged(command: list[str]) -> Resolved:
    """The configuration that a command of the guide trains with."""
    import argparse

    parser = argparse.ArgumentParser()
    arguments(parser)
    return resolve(parser.parse_args(command[command.index("train") + 1 :]))[1]


def shell(root: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PILOT_PYTHON": sys.executable, **variables}
    return subprocess.run(
        ["bash", f"scripts/{script}"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_guides_own_example(guide: Path) -> None:
    said = shell(
        guide,
        "train_flux_final.sh",
        RUN_NAME="john_doe",
        RANK="48",
        MAX_STEPS="2000",
        NOISE_OFFSET="0.08",
        DRY_RUN="1",
    )
    assert said.returncode == 0, said.stderr
    config = merged(shlex.split(said.stdout)).config
    assert (config.run.name, config.network.rank, config.network.alpha) == ("john_doe", 48, 48)
    assert (config.training.steps, config.noise.offset) == (2000, 0.08)
    # What was not said is the final profile's.
    assert (config.network.dropout, config.loss.min_snr_gamma, config.buckets.max_side) == (0.1, 5.0, 1024)


def test_every_entry_point_runs_the_identical_command(guide: Path) -> None:
    direct = shell(guide, "train_flux_final.sh", DRY_RUN="1", RUN_NAME="one").stdout
    assert direct.split()[-1].startswith("sampling.prompts_file=")
    assert shell(guide, "train_dashboard.sh", PROFILE="final", DRY_RUN="1", RUN_NAME="one").stdout == direct
    assert shell(guide, "train_flux_fast.sh", DRY_RUN="1", RUN_NAME="one").stdout == direct.replace("final", "fast")


def test_every_variable_reaches_its_setting(guide: Path) -> None:
    given = {
        "SEED": "7",
        "MAX_STEPS": "30",
        "RANK": "8",
        "ALPHA": "4",
        "LEARNING_RATE": "5e-5",
        "NOISE_OFFSET": "0.02",
        "DROPOUT": "0.25",
        "SNR_GAMMA": "3",
        "GRAD_ACCUM": "2",
        "BATCH_SIZE": "3",
        "RESOLUTION": "640",
        "OUT_DIR": "elsewhere",
    }
    assert set(SETTINGS) - set(given) == {"RESUME_FROM"}
    config = merged(build(guide, "final", given | {"FP8_BASE": "1"})).config
    for variable, path in SETTINGS.items():
        if variable in given and variable != "OUT_DIR":
            section, key = path.split(".")
            assert getattr(getattr(config, section), key) == float(given[variable]), variable
    assert config.saving.links == str(guide / "elsewhere")
    assert config.precision.base == "fp8"


def test_files_of_the_variables_start_in_the_guides_folder(guide: Path) -> None:
    (guide / "output" / "old.safetensors").write_bytes(b"")
    (guide / "data" / "regularization").mkdir()
    Image.new("RGB", (64, 64)).save(guide / "data" / "regularization" / "a.png")
    given = {"DATA_DIR": "data/subject", "USE_REG": "1", "MODEL_PATH": " "}
    config = merged(build(guide, "fast", given)).config
    assert [dataset.regularization for dataset in config.datasets] == [False, True]
    assert config.model.base == str(guide.parent / "models" / "flux-dev")
    command = build(guide, "fast", {"RESUME_FROM": "output/old.safetensors"}, today="20260102")
    assert f"network.init_from={guide / 'output' / 'old.safetensors'}" in command
    assert command[command.index("--name") + 1] == "flux_fast_20260102"


def test_wrong_variables_are_named_together(guide: Path) -> None:
    wrong = {"RANK": "-3", "MAX_STEPS": "many", "FP8_BASE": "perhaps", "USE_REG": "1", "LEARNING_RATE": "1e-4"}
    with pytest.raises(Problems) as caught:
        build(guide, "quick", wrong)
    assert {problem.where for problem in caught.value.problems} == {
        "PROFILE",
        "RANK",
        "MAX_STEPS",
        "FP8_BASE",
        "USE_REG",
    }
    said = shell(guide, "train_flux_fast.sh", RANK="-3")
    assert said.returncode == 2
    assert "RANK" in said.stderr and "at least 1" in said.stderr


def validator(root: Path) -> subprocess.CompletedProcess[str]:
    script = root / "scripts" / "validate_config_usage.py"
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)


def test_the_validator_accepts_the_guide_as_it_comes(guide: Path) -> None:
    said = validator(guide)
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("ok  ") == len(validation.CHECKS)


BREAKS = [
    ("scripts/train_flux_fast.sh", "build_train_cmd.py", "other.py", validation.scripts_use_the_builder),
    ("scripts/train_dashboard.sh", "exec ", "trainpilot train; exec ", validation.scripts_use_the_builder),
    ("scripts/build_train_cmd.py", "try:", "try", validation.builder_is_whole),
    ("scripts/build_train_cmd.py", "trainpilot.guides.flux_identity", "my_builder", validation.builder_is_whole),
    ("configs/flux_fast.toml", "[network]", "[network", validation.configurations_are_valid),
    ("configs/flux_final.toml", "dropout", "drop_out", validation.configurations_are_valid),
    ("configs/flux_fast.toml", "alpha = 32", "alpha = 16", validation.repairs_are_in_place),
    ("configs/flux_final.toml", "offset = 0.1", "offset = 0.2", validation.repairs_are_in_place),
    ("configs/flux_final.toml", 'mixed = "bf16"', 'mixed = "fp16"', validation.flux_has_what_it_needs),
    ("configs/flux_fast.toml", "[noise]", '[noise]\ntimesteps = "uniform"', validation.flux_has_what_it_needs),
    ("configs/flux_fast.toml", "[noise]", "[noise]\nguidance = 3.5", validation.flux_has_what_it_needs),
    ("configs/flux_fast.toml", "train = false", "train = true", validation.flux_has_what_it_needs),
    (
        "configs/flux_fast.toml",
        "gradient_checkpointing = true",
        "gradient_checkpointing = false",
        validation.flux_has_what_it_needs,
    ),
]


@pytest.mark.parametrize(("name", "before", "after", "check"), BREAKS)
def test_the_validator_fails_on_a_broken_copy(
    guide: Path, name: str, before: str, after: str, check: validation.Check
) -> None:
    path = guide / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert list(check(guide)), f"{check.__name__} does not see {after!r}"
    assert validation.main(guide) == 2


def test_the_validator_misses_no_file(guide: Path) -> None:
    (guide / "scripts" / "train_flux_final.sh").unlink()
    (guide / "configs" / "flux_fast.toml").unlink()
    said = validator(guide)
    assert said.returncode == 2
    assert "train_flux_final.sh is missing" in said.stdout
    assert "flux_fast.toml" in said.stdout


def test_a_persons_configuration_is_kept(guide: Path) -> None:
    mine = guide / "configs" / "flux_fast.toml"
    mine.write_text("[network]\nrank = 4\n")
    grow(Workspace(guide.parent))
    assert mine.read_text() == "[network]\nrank = 4\n"
