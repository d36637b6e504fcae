"""The page on model management runs as written, every command in its order, on pilot-tiny; the card's Python too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from lora_states import state

from trainpilot.cli import main
from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.formats import kohya
from trainpilot.formats.model_card import snippet
from trainpilot.formats.release import gather
from trainpilot.models.detect import detect
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "model-management.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", PAGE, re.S) for line in block.splitlines() if line]
TINY = ROOT / "workspace-template" / "models" / "pilot-tiny"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a finished run, a LoRA of somebody else's, and the folders of two tools."""
    root = tmp_path_factory.mktemp("guide")
    for folder in ("apps/ComfyUI/models/loras", "apps/stable-diffusion-webui/models/Lora", "models/loras"):
        (root / folder).mkdir(parents=True)
    (root / "models" / "pilot-tiny").symlink_to(TINY)
    found = Workspace(root)
    config = RunConfig(run={"name": "zorp"}, model={"base": str(TINY), "family": "sd15"})
    run = RunDir.create(found, Resolved(config, {}))
    shapes = {"denoiser": {n: s for n, s in detect(TINY).shapes["denoiser"].items() if n.endswith(("to_q", "to_v"))}}
    for number, (path, rank) in enumerate(((run.result, 8), (found.loras / "ink.safetensors", 4))):
        metadata = {"ss_base_model_version": "sd_v1", "modelspec.author": "me"}
        kohya.write(path, "sd15", state(shapes, rank, rank, seed=number), metadata, torch.float16)
    return found


def test_every_command_of_the_page_runs(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place.root)
    monkeypatch.setenv("PILOT_WORKSPACE", str(place.root))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert len(COMMANDS) >= 14
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[0] == "trainpilot"
        assert main(words[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
        written = words[words.index("--out") + 1] if "--out" in words else ""
        assert not written or (place.root / written).exists(), command
    told = capsys.readouterr().out
    assert "<lora:zorp:0.8> zorp" in told and "nothing was sent" in told
    assert (place.root / "apps" / "ComfyUI" / "models" / "loras" / "zorp.safetensors").is_symlink()


def test_the_python_on_the_card_makes_a_picture(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    release = gather(place, "zorp", base_repo=str(TINY))
    code = snippet(release, "").removeprefix("```python\n").removesuffix("```\n")
    monkeypatch.chdir(release.file.parent)
    # The one thing of it that this machine may lack is the GPU, and half precision with it.
    code = code.replace("'cuda'", "'cpu'").replace("float16", "float32")
    exec(compile(code, "card", "exec"), {})
    assert (release.file.parent / "picture.png").stat().st_size > 100
