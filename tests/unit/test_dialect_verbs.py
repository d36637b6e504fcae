"""The verbs import and export, and train/plan on another trainer's file: what they print, write and never touch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from trainpilot.cli import main
from trainpilot.config.merge import resolve
from trainpilot.dialects.kohya_json import fate, fields
from trainpilot.workspace import Workspace

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "workspace-template" / "config" / "kohya" / "first_lora.json"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    place = Workspace(tmp_path / "ws")
    shutil.copytree(ROOT / "workspace-template" / "models" / "pilot-tiny", place.models / "pilot-tiny")
    pictures = place.datasets / "images" / "10_name"
    pictures.mkdir(parents=True)
    for number in range(15):
        Image.new("RGB", (64, 64), (number * 10, 90, 20)).save(pictures / f"{number:02}.png")
        (pictures / f"{number:02}.txt").write_text("name, a photo")
    monkeypatch.setenv("PILOT_WORKSPACE", str(place.root))
    return place


DATA = ["--dataset", "10_name", "--base-model", "pilot-tiny"]


def test_the_starter_file_of_the_first_lora_guide_means_ten_epochs(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", str(STARTER), *DATA, "--json"]) == 0
    printed = capsys.readouterr()
    plan = json.loads(printed.out)
    given = json.loads(STARTER.read_text())
    assert plan["steps"] == 15 * 10 * given["epoch"] / given["train_batch_size"]
    assert plan["epochs"] == given["epoch"]
    assert "0 refused" in printed.err and "max_train_steps is absent" in printed.err


def test_import_writes_a_file_that_trains_the_same_and_never_overwrites(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = tmp_path / "first.json"
    shutil.copy(STARTER, given)
    assert main(["import", str(given), "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    written = tmp_path / "first.toml"
    assert account["written"] == str(written)
    assert sum(account["counts"][name] for name in ("mapped", "approximated", "refused", "idle")) == len(
        json.loads(STARTER.read_text())
    )
    direct = {"datasets": [{"path": "10_name"}], "model.base": "pilot-tiny"}
    ours = resolve(workspace, file=written, direct=direct)
    theirs = resolve(workspace, file=given, tables=account["config"], direct=direct)
    assert ours.config == theirs.config
    before = written.read_bytes()
    assert main(["import", str(given)]) == 2
    assert "exists" in capsys.readouterr().err
    assert written.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "first.toml", "ws"]


def test_export_prints_the_command_and_writes_what_it_names(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "x y.toml"
    assert (
        main(["export", "--config", str(STARTER), *DATA, "--name", "z", "--to", "sd-scripts", "--out", str(out)]) == 0
    )
    printed = capsys.readouterr().out
    assert "train_network.py --config_file 'x y.toml'" in printed
    again = tmp_path / "again.toml"
    assert main(["import", str(out), "--out", str(again)]) == 0
    config = resolve(workspace, file=again, direct={"model.base": "pilot-tiny"}).config
    assert (config.training.epochs, config.datasets[0].repeats, config.network.rank) == (10, 10, 32)


def test_an_unknown_or_foreign_looking_file_is_told_apart(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing.json"
    nothing.write_text('{"colour": "blue"}')
    assert main(["import", str(nothing)]) == 2
    assert "no configuration that is known" in capsys.readouterr().err
    assert main(["import", str(STARTER), "--from", "kohya_jsn"]) == 2
    assert "kohya_json" in capsys.readouterr().err
    ours = tmp_path / "ours.toml"
    ours.write_text("[training]\nsteps = 30\nbatch_size = 3\n[network]\nrank = 8\n")
    assert main(["plan", "--config", str(ours), *DATA, "--json"]) == 0
    assert "refused" not in capsys.readouterr().err


def test_secrets_in_a_file_are_never_shown_or_written(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = tmp_path / "secret.json"
    given.write_text(
        json.dumps({**json.loads(STARTER.read_text()), "wandb_api_key": "s3cr3t", "huggingface_token": "t0k"})
    )
    assert main(["import", str(given)]) == 0
    printed = capsys.readouterr()
    shown = printed.out + printed.err + (tmp_path / "secret.toml").read_text()
    assert "s3cr3t" not in shown and "t0k" not in shown
    assert "WANDB_API_KEY" in shown and "HF_TOKEN" in shown


def test_all_fields_of_kohyas_form_are_known_and_few_are_refused() -> None:
    assert len(fields()) == 287
    refused = [name for name in fields() if fate(name) == "refused"]
    assert len(refused) <= 0.15 * len(fields())
