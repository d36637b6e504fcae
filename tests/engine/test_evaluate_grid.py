"""Grids on a tiny model: each cell is what `sample` paints, a column costs that column, a stop loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import tiny
from PIL import Image
from test_sample_command import _state

from trainpilot import cli
from trainpilot.config.prompts import Prompt
from trainpilot.engine.painting import Painting, paint
from trainpilot.engine.probe import choose_device
from trainpilot.errors import ExitCode
from trainpilot.evaluate import easel as easels
from trainpilot.evaluate.album import Album, Order
from trainpilot.evaluate.easel import Easel
from trainpilot.evaluate.painter import Painter
from trainpilot.formats import kohya
from trainpilot.models.detect import detect
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.requests import ask
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("PILOT_DEVICE", "cpu")
    place = Workspace(tmp_path / "workspace")
    place.loras.mkdir(parents=True)
    (place.models / "tiny").symlink_to(tiny("sd15"))
    write_lora(place.loras / "one.safetensors", 1.0)
    write_lora(place.loras / "other.safetensors", 2.0)
    return place


def write_lora(path: Path, effect: float) -> None:
    """A LoRA with the given share of the usual effect: other weights, another picture."""
    state = _state("sd15")
    for modules in state.values():
        for weights in modules.values():
            weights.alpha *= effect
    kohya.write(path, "sd15", state, {}, torch.float32)


def job(workspace: Workspace, **params: object) -> JobDir:
    shared = {"base": "tiny", "prompts": ["a zorp"], "seeds": [7], "steps": [2], "width": 64, "height": 64}
    return JobDir.create(workspace, "grid", shared | params)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def document(of: JobDir) -> dict:
    return json.loads((of.path / "grid.json").read_text())


def album(workspace: Workspace) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (workspace.cache / "pictures").rglob("*.png")}


def test_a_cell_is_what_loading_its_lora_anew_would_paint(workspace: Workspace) -> None:
    """The easel changes weights in place and back: after any number of changes a picture is the one of `paint`."""
    base, device = detect(workspace.models / "tiny"), choose_device()
    one = workspace.loras / "one.safetensors"
    prompts = [Prompt(text="a zorp", width=64, height=64, seed=seed, steps=2, sampler="euler") for seed in (1, 2)]
    sets = [((one, 0.5),), ((one, 1.0),), (), ((one, 1.0), (workspace.loras / "other.safetensors", -0.3))]
    orders = [Order(prompt, loras) for loras in sets for prompt in prompts]
    painted = dict(Easel(base, device).paint(orders))
    for loras in sets:
        expected = list(paint(Painting(base, loras), prompts, device))
        for prompt, image in zip(prompts, expected, strict=True):
            found = painted[orders.index(Order(prompt, loras))]
            # Batches round larger products a little differently.
            assert np.abs(np.asarray(found).astype(int) - np.asarray(image).astype(int)).max() <= 1
    assert not np.array_equal(np.asarray(painted[0]), np.asarray(painted[2]))


def test_axes_make_sheets(workspace: Workspace) -> None:
    made = job(
        workspace,
        loras=["", "one.safetensors", "other.safetensors"],
        strengths=[0.5, 1],
        steps=[1, 2],
        prompts=["a zorp", "a hill"],
    )
    assert cli.main(["run", str(made.path)]) == ExitCode.DONE, made.job
    found = document(made)
    assert (found["x"], found["y"], found["z"]) == ("strength", "lora", ["prompt", "steps"])
    assert len(found["sheets"]) == 2 * 2 and found["axes"]["lora"] == ["base", "one", "other"]
    for sheet in found["sheets"]:
        assert Image.open(made.path / sheet["file"]).format == "PNG"
        assert [len(row) for row in sheet["cells"]] == [2, 2, 2]
        assert all((made.path / file).is_file() for row in sheet["cells"] for file in row)
        base = sheet["cells"][0]
        assert base[0] == base[1], "the base has no strength: one picture stands in both columns"
    # 4 sheets of 1 base picture and 2 x 2 others.
    assert found["pictures"] == len(album(workspace)) == 4 * 5
    assert Image.open(made.path / "contact.png").width > 0


def test_a_picture_says_what_it_was_made_of(workspace: Workspace) -> None:
    made = job(workspace, loras=["one.safetensors"], strengths=[0.5])
    assert cli.main(["run", str(made.path)]) == ExitCode.DONE
    [[cell]] = document(made)["sheets"][0]["cells"]
    text = Image.open(made.path / cell).text  # type: ignore[attr-defined]
    assert (text["prompt"], text["seed"], text["lora"]) == ("a zorp", "7", "one.safetensors:0.5")


def test_a_further_column_costs_that_column(workspace: Workspace) -> None:
    first = job(workspace, loras=["one.safetensors"], strengths=[0.5, 1])
    assert cli.main(["run", str(first.path)]) == ExitCode.DONE
    before = album(workspace)
    second = job(workspace, loras=["one.safetensors"], strengths=[0.5, 0.8, 1])
    assert cli.main(["run", str(second.path)]) == ExitCode.DONE
    after = album(workspace)
    assert len(after) == len(before) + 1 and all(after[name] == time for name, time in before.items())
    assert second.job is not None and "1 painted now" in second.job.reason


def test_what_the_weights_are_counts_and_not_the_files_name(workspace: Workspace) -> None:
    made = job(workspace, loras=["one.safetensors"])
    assert cli.main(["run", str(made.path)]) == ExitCode.DONE
    one, other = workspace.loras / "one.safetensors", workspace.loras / "other.safetensors"
    assert len(album(workspace)) == 1
    other.unlink()
    one.rename(other)
    write_lora(one, 3.0)
    for _ in range(2):
        again = job(workspace, loras=["one.safetensors"])
        assert cli.main(["run", str(again.path)]) == ExitCode.DONE
    assert len(album(workspace)) == 2
    renamed = job(workspace, loras=["other.safetensors"])
    assert cli.main(["run", str(renamed.path)]) == ExitCode.DONE
    assert len(album(workspace)) == 2, "the same weights under another name are the same picture"


def test_a_killed_grid_goes_on_without_painting_twice(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(workspace, loras=["", "one.safetensors"], strengths=[0.5, 1], seeds=[1, 2])
    batches: list[int] = []
    sample = easels.sample_batch

    def counted(*args: object, **named: object) -> list[Image.Image]:
        batches.append(len(args[2]))  # type: ignore[arg-type]
        if len(batches) == 2:
            ask(made.path, "stop")
        return sample(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(easels, "sample_batch", counted)
    monkeypatch.setattr("trainpilot.runs.requests.GAP", 0.0)
    monkeypatch.setattr("trainpilot.runs.stop.GAP", 0.0)
    assert cli.main(["run", str(made.path)]) == ExitCode.STOPPED
    kept = album(workspace)
    assert len(kept) == 2 and not (made.path / "grid.json").exists()
    assert cli.main(["run", str(made.path)]) == ExitCode.DONE
    assert sum(batches) == 6 + 2, "the batch that was stopped in is painted again, the one before it is not"
    now = album(workspace)
    assert len(now) == 6 and all(now[name] == time for name, time in kept.items())


def test_less_memory_makes_smaller_batches(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sample = easels.sample_batch

    def small(*args: object, **named: object) -> list[Image.Image]:
        sizes.append(len(args[2]))  # type: ignore[arg-type]
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(easels, "sample_batch", small)
    base = detect(workspace.models / "tiny")
    easel = Easel(base, choose_device())
    painter = Painter(easel, Album(workspace, base, easel.settings, lambda: None), lambda: None)
    prompt = Prompt(text="a zorp", width=64, height=64, steps=1, sampler="euler")
    orders = [Order(Prompt(**{**prompt.__dict__, "seed": seed})) for seed in range(5)]
    assert len(set(painter.paint(orders))) == 5
    assert sizes == [5, 2, 2, 1]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"base": "gone"}, "gone does not exist"),
        ({"loras": ["gone.safetensors"]}, "gone.safetensors"),
        ({"samplers": ["magic"]}, "magic"),
        ({"seeds": list(range(100)), "prompts": [f"a {n}" for n in range(60)]}, "6000 cells"),
    ],
)
def test_what_cannot_be_painted_is_told(workspace: Workspace, params: dict[str, object], words: str) -> None:
    made = job(workspace, **params)
    assert cli.main(["run", str(made.path)]) == ExitCode.BAD_INPUT
    assert made.job is not None and words in made.job.reason


def test_the_verb_makes_a_grid(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["grid", "a zorp", "a hill", "--base", "tiny", "--lora", "", "--lora", "one.safetensors", "--steps", "2"]
    words += ["--strength", "0.5,1", "--size", "64", "--x", "prompt", "--workspace", str(workspace.root), "--json"]
    assert cli.main(words) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["x"], found["y"], found["z"]) == ("prompt", "lora", ["strength"])
    assert (Path(found["folder"]) / "sheet-001.png").is_file()
