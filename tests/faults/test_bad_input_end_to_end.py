"""Bad input to `trainpilot train`: exit code 2 and one message before anything is spent, and the user's files as they
were. What the configuration alone refuses is held by the tests of `plan` and of the merging.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from light_bases import flux_folder, sd_folder, single_file, write_safetensors
from PIL import Image
from tiny_runs import SMALL, workspace, write_pictures

from trainpilot.cli import main
from trainpilot.runs import events
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

GOOD = ("--dataset", "2_zorp", "--base-model", "tiny")


def contents(*folders: Path) -> dict[Path, tuple[str, int]]:
    """Every file below: its hash and its time of change."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def words(*settings: str) -> list[str]:
    return [word for text in settings for word in ("--set", text)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    found = Workspace(tmp_path / "ws")
    write_pictures(found.datasets / "images" / "2_zorp", 3)
    sd_folder(found.models / "tiny")
    flux_folder(found.models / "tiny-flux")
    monkeypatch.setenv("PILOT_WORKSPACE", str(found.root))
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return found


def refused(capsys: pytest.CaptureFixture[str], place: Workspace, *args: str) -> str:
    """Run `train`: exit code 2, one message in four parts, no run, no queue, the user's files untouched."""
    before = contents(place.datasets, place.models)
    assert main(["train", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    assert err.splitlines()[0].startswith("error in ")
    assert [len(re.findall(rf"^ *{part} ", err, re.M)) >= 1 for part in ("given", "allowed", "remedy")] == [True] * 3
    assert not place.outputs.exists() and not place.loras.exists()
    assert contents(place.datasets, place.models) == before
    return err


def test_pictures_that_are_not_there(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (place.datasets / "images" / "1_empty").mkdir()
    assert "1_empty" in refused(capsys, place, "--dataset", "1_empty", "--base-model", "tiny")
    message = refused(capsys, place, "--dataset", "nowhere", "--base-model", "nor-this")
    assert "datasets.0.path" in message and "model.base" in message


def test_a_base_model_of_another_family(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    single_file(place.models / "xl.safetensors", "sdxl")
    for base, family in (("tiny-flux", "sd15"), ("xl.safetensors", "flux"), ("tiny", "sdxl")):
        args = ("--dataset", "2_zorp", "--base-model", base, *words(f"model.family={family}"))
        assert base in refused(capsys, place, *args)


def lora(path: Path, modules: list[str], rank: int = 4) -> Path:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in modules:
        shapes |= {f"{name}.lora_down.weight": (rank, 32), f"{name}.lora_up.weight": (32, rank), f"{name}.alpha": ()}
    return write_safetensors(path, shapes)


def test_a_lora_to_begin_from_that_cannot_fit(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    beside = place.root / "files"
    flux = lora(beside / "flux.safetensors", ["lora_unet_double_blocks_0_img_attn_proj"])
    message = refused(capsys, place, *GOOD, *words(f"network.init_from={flux}"))
    assert "network.init_from" in message and "FLUX" in message and "Stable Diffusion 1" in message
    sd15 = lora(beside / "sd15.safetensors", ["lora_te_text_model_encoder_layers_0_self_attn_q_proj"])
    message = refused(capsys, place, *GOOD, *words(f"network.init_from={sd15}", "network.rank=8"))
    assert "rank 4" in message and "rank 8" in message
    assert "loha" in refused(capsys, place, *GOOD, *words(f"network.init_from={sd15}", "network.type=loha"))
    base = place.models / "tiny" / "unet" / "diffusion_pytorch_model.safetensors"
    assert "no LoRA file" in refused(capsys, place, *GOOD, *words(f"network.init_from={base}"))
    cut = beside / "cut.safetensors"
    cut.write_bytes(flux.read_bytes()[:-5])
    message = refused(capsys, place, *GOOD, *words(f"network.init_from={cut}"))
    assert "cut.safetensors" in message and "5 too few" in message


def test_a_truncated_base_model(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    weights = place.models / "tiny" / "text_encoder" / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 7)
    assert "7 too few" in refused(capsys, place, *GOOD)


def test_settings_that_cannot_be(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, place, *GOOD, *words("network.rank=-4", "optimizer.learning_rat=1e-4"))
    assert "network.rank" in message and "at least 1" in message and "Did you mean optimizer.learning_rate?" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("a disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(
    small_disk: Path, place: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = Workspace(small_disk / "ws")
    write_pictures(full.datasets / "images" / "2_zorp", 3)
    sd_folder(full.models / "tiny")
    monkeypatch.setenv("PILOT_WORKSPACE", str(full.root))
    before = contents(full.datasets, full.models)
    assert main(["train", *GOOD]) == 2
    out, err = capsys.readouterr()
    # The plan is printed, then its need for space is refused.
    assert "steps" in out and err.startswith("error in disk of") and "saving.keep" in err
    assert not full.outputs.exists() and contents(full.datasets, full.models) == before


def test_broken_files_are_named_and_the_rest_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, place = workspace("sd15"), Workspace(tmp_path / "ws")
    folder = write_pictures(place.datasets / "images" / "2_zorp", 4)
    for number, cut in (("1", 0.5), ("2", 0.0)):
        picture = folder / f"{number}.png"
        picture.write_bytes(picture.read_bytes()[: int(cut * picture.stat().st_size)])
    (folder / "3.txt").write_bytes("zorp, groß, Größe".encode("cp1252"))
    Image.new("RGB", (4, 4)).save(folder / "cover.gif")
    monkeypatch.setenv("PILOT_WORKSPACE", str(place.root))
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    from miniatures import tiny

    given = ["--dataset", "2_zorp", "--base-model", str(tiny("sd15")), "--name", "zorp"]
    settings = [*SMALL, "training.steps=2"]
    err = refused(capsys, place, *given, *words(*settings, "datasets.strict=true"))
    assert all(name in err for name in ("1.png", "2.png", "3.txt")) and "0.png" not in err
    before = contents(place.datasets, base.models)
    assert main(["train", *given, *words(*settings)]) == 0
    assert contents(place.datasets, base.models) == before
    told = [event["text"] for event in events.history(place.outputs / "zorp" / "events.jsonl") if "text" in event]
    for name, what in (("1.png", "skipped"), ("2.png", "skipped"), ("3.txt", "Windows-1252")):
        assert any(name in text and what in text for text in told), (name, told)
    run = RunDir.open(place.outputs / "zorp", place)
    assert run.job is not None and run.job.status == "done" and run.result.is_file()
