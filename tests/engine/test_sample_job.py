"""The job `sample` on a tiny model: its matrix, its PNG text, and going on after a stop without painting twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import tiny
from PIL import Image

from trainpilot import cli
from trainpilot.errors import ExitCode
from trainpilot.formats import kohya
from trainpilot.runs.events import history
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.requests import ask
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("PILOT_DEVICE", "cpu")
    place = Workspace(tmp_path / "workspace")
    place.models.mkdir(parents=True)
    (place.models / "tiny").symlink_to(tiny("sd15"))
    return place


def _lora(workspace: Workspace, name: str) -> Path:
    from test_sample_command import _state

    workspace.loras.mkdir(exist_ok=True)
    path = workspace.loras / name
    kohya.write(path, "sd15", _state("sd15"), {}, torch.float32)
    return path


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def _job(workspace: Workspace, **params: object) -> JobDir:
    shared = {"base": "tiny", "prompts": ["a zorp"], "seeds": [7], "steps": 2, "width": 64, "height": 64}
    return JobDir.create(workspace, "sample", shared | params)


def test_a_matrix_of_prompts_seeds_and_strengths(workspace: Workspace) -> None:
    _lora(workspace, "zorp.safetensors")
    columns = [
        {},
        {"lora": "models/loras/zorp.safetensors", "strength": 0},
        {"lora": "zorp.safetensors", "strength": 1},
    ]
    job = _job(workspace, prompts=["a zorp", "a hill --d 3"], seeds=[7, 8], columns=columns, negative="blurry")
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE, job.job
    matrix = json.loads((job.path / "matrix.json").read_text())
    assert [column["label"] for column in matrix["columns"]] == ["base model", "zorp · 0", "zorp · 1"]
    # A seed in the prompt's own line is meant, and makes one row.
    assert [(row["text"], row["seed"]) for row in matrix["rows"]] == [("a zorp", 7), ("a zorp", 8), ("a hill", 3)]
    pictures = job.path / "pictures"
    assert len(list(pictures.glob("*.png"))) == 9
    base, none, full = (_pixels(pictures / f"c0{column}_r000.png") for column in range(3))
    assert np.array_equal(base, none) and not np.array_equal(base, full)
    text = Image.open(pictures / "c02_r001.png").text  # type: ignore[attr-defined]
    assert (text["prompt"], text["seed"], text["negative_prompt"]) == ("a zorp", "8", "blurry")
    assert text["lora"] == "zorp.safetensors:1" and "Seed: 8" in text["parameters"]


def test_the_job_paints_what_the_command_paints(workspace: Workspace, tmp_path: Path) -> None:
    lora = _lora(workspace, "zorp.safetensors")
    job = _job(workspace, columns=[{"lora": "zorp.safetensors", "strength": 0.5}])
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    words = ["sample", "a zorp", "--base", str(workspace.models / "tiny"), "--lora", f"{lora}:0.5", "--seed", "7"]
    assert cli.main([*words, "--steps", "2", "--size", "64", "--out", str(tmp_path / "out")]) == ExitCode.DONE
    (made,) = (tmp_path / "out").glob("*.png")
    assert np.array_equal(_pixels(made), _pixels(job.path / "pictures" / "c00_r000.png"))


def test_a_stopped_test_goes_on_without_painting_twice(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainpilot.engine import painting

    _lora(workspace, "zorp.safetensors")
    job = _job(workspace, seeds=[1, 2], columns=[{}, {"lora": "zorp.safetensors"}])
    painted = []
    sample = painting.sample

    def counted(*args: object, **named: object) -> Image.Image:
        painted.append(args[2])
        if len(painted) == 3:
            ask(job.path, "stop")
        return sample(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(painting, "sample", counted)
    monkeypatch.setattr("trainpilot.runs.requests.GAP", 0.0)
    monkeypatch.setattr("trainpilot.runs.stop.GAP", 0.0)
    assert cli.main(["run", str(job.path)]) == ExitCode.STOPPED
    kept = {path.name: path.stat().st_mtime_ns for path in (job.path / "pictures").glob("*.png")}
    assert sorted(kept) == ["c00_r000.png", "c00_r001.png"]
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    assert len(painted) == 3 + 2
    now = {path.name: path.stat().st_mtime_ns for path in (job.path / "pictures").glob("*.png")}
    assert len(now) == 4 and all(now[name] == time for name, time in kept.items())
    assert len([event for event in history(job.path / "events.jsonl") if event["kind"] == "picture"]) == 4


def test_a_lora_that_was_trained_on_meanwhile_is_painted_anew(workspace: Workspace) -> None:
    lora = _lora(workspace, "zorp.safetensors")
    job = _job(workspace, columns=[{"lora": "zorp.safetensors", "strength": 1}])
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    before = _pixels(job.path / "pictures" / "c00_r000.png")
    lora.unlink()
    (workspace.loras / "zorp.safetensors").write_bytes(_lora(workspace, "other.safetensors").read_bytes())
    os.utime(lora, (1, 1))
    job.queue()
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    events = [event for event in history(job.path / "events.jsonl") if event["kind"] == "picture"]
    assert len(events) == 2 and np.array_equal(before, _pixels(job.path / "pictures" / "c00_r000.png"))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"base": "gone"}, "gone does not exist"),
        ({"columns": [{"lora": "gone.safetensors"}]}, "gone.safetensors"),
        ({"prompts": ["a --zz 3"]}, "--zz"),
        ({"sampler": "magic"}, "magic"),
    ],
)
def test_what_cannot_be_painted_is_told(workspace: Workspace, params: dict[str, object], words: str) -> None:
    job = _job(workspace, **params)
    assert cli.main(["run", str(job.path)]) == ExitCode.BAD_INPUT
    assert job.job is not None and words in job.job.reason
