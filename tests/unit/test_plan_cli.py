"""`trainpilot plan` and its neighbours: true numbers for good input, exit code 2 and one message for bad input."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from light_bases import flux_folder, sd_folder, single_file
from PIL import Image

from trainpilot.cli import main
from trainpilot.config.document import write_toml
from trainpilot.config.merge import Resolved, resolve
from trainpilot.plan.command import command
from trainpilot.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    sd_folder(workspace.models / "tiny")
    folder = workspace.datasets / "images" / "3_zorp"
    folder.mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (64, 64) if number < 8 else (64, 96), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zorp, number {number}")
    monkeypatch.setenv("PILOT_WORKSPACE", str(workspace.root))
    return workspace


GOOD = ("--dataset", "3_zorp", "--base-model", "tiny")


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["plan", *GOOD, "--json", *args]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_plan_of_a_small_run(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(
        capsys, "--set", "training.epochs=5", "--set", "training.batch_size=4", "--set", "buckets.max_side=96",
        "--set", "saving.every_steps=50", "--price", "3.6", "--tflops", "1",
    )  # fmt: skip
    # 8 square and 4 tall pictures, three times each: 24 and 12, which are 6 + 3 batches of 4.
    assert plan["images"] == 12 and plan["pictures_per_epoch"] == 36
    assert sorted(plan["bucket_counts"].values()) == [12, 24]
    assert (plan["batches_per_epoch"], plan["steps_per_epoch"], plan["steps"]) == (9, 9, 45)
    assert plan["checkpoints"] == [45]
    assert plan["cost"] == pytest.approx(plan["seconds"] / 3600 * 3.6)
    assert plan["cache"]["latent_entries"] == plan["cache"]["text_entries"] == 12
    assert not place.outputs.exists()


def test_the_plan_as_text_says_why(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *GOOD, "--set", "datasets.captions.shuffle=true", "--set", "training.epochs=1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "captions.shuffle makes another caption at every draw" in text
    assert "training.steps = 1500 (from profile standard) is dropped" in text
    assert "model.family = sd15" in text
    assert "time is an estimate for CPU" in text and "of a miniature: scaled from the full-size model" in text
    assert f"trainpilot train --profile standard --dataset {place.datasets}/images/3_zorp" in text


def test_memory_too_small_is_said_with_what_to_do(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    single_file(place.models / "dev.safetensors", "dev")
    args = ["--base-model", "dev.safetensors", "--device", "RTX 4090", "--device-gb", "24"]
    plan = planned(capsys, *args)
    warnings, reasons = plan["warnings"], " ".join(plan["reasons"])
    assert "device memory is an estimate from module shapes" in reasons
    (said,) = [text for text in warnings if "out of memory" in text]
    order = ["training.batch_size 1", "buckets.resolution 512", "precision.base fp8", "gradient_checkpointing"]
    assert [said.index(step) for step in order] == sorted(said.index(step) for step in order)


def test_captions_longer_than_the_encoder_are_said(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = pytest.importorskip("trainpilot.families.miniature", reason="needs a tokenizer to write")
    miniature.clip_tokenizer().save_pretrained(place.models / "tiny" / "tokenizer")
    (place.datasets / "images" / "3_zorp" / "0.txt").write_text("zorp " * 40)
    plan = planned(capsys)
    # Every letter is a token there: 40 words of four letters.
    assert (plan["captions"][0]["longest"], plan["captions"][0]["over"]) == (160, 1)
    assert any("1 captions are longer than the 75 tokens" in text for text in plan["warnings"])


def bad(capsys: pytest.CaptureFixture[str], place: Workspace, *args: str) -> str:
    """Run plan, expect exit code 2 and one message with its four parts, and nothing written."""
    assert main(["plan", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert all(word in captured.err for word in ("error in", "given", "allowed", "remedy"))
    assert not place.outputs.exists()
    return captured.err


def test_no_images(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.datasets / "images" / "1_empty").mkdir()
    assert "1_empty" in bad(capsys, place, "--dataset", "1_empty", "--base-model", "tiny")


def test_no_dataset_at_all(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--dataset" in bad(capsys, place, "--base-model", "tiny")


def test_a_path_that_does_not_exist(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    message = bad(capsys, place, "--dataset", "nowhere", "--base-model", "also-nowhere")
    assert "datasets.0.path" in message and "model.base" in message


def test_a_base_model_of_another_family(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    message = bad(capsys, place, *GOOD, "--set", "model.family=sdxl")
    assert "is sd15" in message and "Stable Diffusion XL" in message


def test_a_truncated_base_model(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    weights = place.models / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(whole - 7)
    message = bad(capsys, place, *GOOD)
    assert f"{whole - 7:,} bytes, 7 too few" in message and f"{whole:,} bytes" in message


def test_a_pickle_as_base_model(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.models / "old.ckpt").write_bytes(b"x")
    assert "pickle" in bad(capsys, place, "--dataset", "3_zorp", "--base-model", "old.ckpt")


def test_a_full_disk(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    # A real shortage: checkpoints at every one of ten million steps, all kept, exceed any disk there is.
    settings = ("training.steps=10000000", "saving.every_steps=1", "saving.keep=0", "network.rank=1024")
    message = bad(capsys, place, *GOOD, *(word for text in settings for word in ("--set", text)))
    assert f"{shutil.disk_usage(place.root).free / 1e9:.2g}"[0] in message
    assert "disk of" in message and "saving.keep" in message


def test_a_negative_rank(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    message = bad(capsys, place, *GOOD, "--set", "network.rank=-4")
    assert "network.rank" in message and "-4 (from --set)" in message and "at least 1" in message


def test_a_misspelt_key(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean network.rank?" in bad(capsys, place, *GOOD, "--set", "network.rnak=4")


def test_a_misspelt_profile(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean standard?" in bad(capsys, place, *GOOD, "--profile", "standart")


def test_a_strict_dataset_with_a_broken_picture(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    broken = place.datasets / "images" / "3_zorp" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    plan = planned(capsys)
    assert plan["images"] == 11 and any("0.png" in text for text in plan["warnings"])
    assert "0.png" in bad(capsys, place, *GOOD, "--set", "datasets.strict=true")


def test_errors_are_json_where_json_is_asked_for(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *GOOD, "--json", "--set", "network.rank=-4", "--set", "loss.tipe=l2"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert [problem["where"] for problem in error["problems"]] == ["loss.tipe", "network.rank"]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.epochs=3", "network.rank=48", "datasets.1.repeats=2", "datasets.captions.prefix=none"),
        ('sampling.prompts=["a, \'b\' --w 64", "c"]', "network.block_ranks={ '^mid' = 4 }", 'run.comment="it\'s"'),
        ("buckets.resolution=64x96", "run.name=my run", "optimizer.args={ amsgrad = true }", "noise.offset=1e-7"),
        ('network.targets=["to_q", "to_k"]', "text_encoder.train=yes", "text_encoder.learning_rate=5e-5"),
    ],
)
def test_the_command_makes_the_same_configuration_again(place: Workspace, overrides: tuple[str, ...]) -> None:
    file = place.root / "mine.toml"
    file.write_text("[training]\nbatch_size = 2\n[network]\nrank = 8\nalpha = 4\n")
    direct: dict[str, object] = {"model.base": "tiny", "datasets": [{"path": "3_zorp"}, {"path": "3_zorp"}]}
    environment = {"PILOT_OPTIMIZER__LEARNING_RATE": "3e-4"}
    first = resolve(place, profile="quality", file=file, overrides=overrides, direct=direct, environment=environment)
    assert _run(place, command(first)).config == first.config


def _run(place: Workspace, words: list[str]) -> Resolved:
    """What `trainpilot train` would resolve these words to."""
    import argparse

    from trainpilot.cli import _options

    parser = argparse.ArgumentParser()
    _options.arguments(parser)
    return _options.resolve(parser.parse_args(shlex.split(shlex.join(words))[2:]))[1]


def test_a_run_folder_stands_for_its_newest_configuration(place: Workspace) -> None:
    first = _run(place, ["trainpilot", "train", *GOOD])
    folder = place.root / "run"
    write_toml(first, folder / "run.toml")
    for number in (2, 10):
        config = first.config.model_copy(deep=True)
        config.run.seed = number
        write_toml(Resolved(config, first.sources, []), folder / f"run.{number}.toml")
    assert _run(place, ["trainpilot", "train", str(folder)]).config.run.seed == 10


def test_models_profiles_and_families_list_what_there_is(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    flux_folder(place.models / "flux")
    (place.models / "broken" / "unet").mkdir(parents=True)
    (place.models / "broken" / "model_index.json").write_text("{}")
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {Path(row["path"]).name: row.get("family", "broken") for row in rows} == {
        "tiny": "sd15", "flux": "flux", "broken": "broken",
    }  # fmt: skip
    assert main(["models"]) == 0 and str(place.models / "tiny") in capsys.readouterr().out
    assert main(["profiles"]) == 0 and "Quick Test" in capsys.readouterr().out
    assert main(["profiles", "standard", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["steps"] == 1500
    assert main(["profiles", "standrad"]) == 2 and "standard" in capsys.readouterr().err
    assert main(["families"]) == 0 and "FLUX.1 [dev]" in capsys.readouterr().out
    assert main(["families", "sdxl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "sdxl"


def test_planning_never_imports_torch(place: Workspace) -> None:
    code = (
        "import sys; from trainpilot.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'accelerate'} & sys.modules.keys(); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, "plan", *GOOD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "steps" in done.stdout
