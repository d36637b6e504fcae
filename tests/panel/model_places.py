"""Workspaces with models for the tests of the Models and Test pages: a base, LoRA files, a run's checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from trainpilot.workspace import Workspace

TEMPLATE = Path(__file__).parents[2] / "workspace-template"


def with_base(workspace: Workspace) -> Workspace:
    """pilot-tiny in models/."""
    shutil.copytree(TEMPLATE / "models" / "pilot-tiny", workspace.models / "pilot-tiny")
    return workspace


def lora_bytes(width: int = 768, rank: int = 4, **metadata: str) -> bytes:
    """A Kohya LoRA of one module of SD 1.5 (width 768) or SDXL (2048), all zeros."""
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    if width == 2048:
        key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    shapes = {f"{key}.lora_down.weight": [rank, width], f"{key}.lora_up.weight": [320, rank], f"{key}.alpha": []}
    header: dict[str, object] = {"__metadata__": {"ss_network_module": "networks.lora", **metadata}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(at)


def with_lora(workspace: Workspace, name: str = "zorp.safetensors", width: int = 768) -> Path:
    workspace.loras.mkdir(parents=True, exist_ok=True)
    path = workspace.loras / name
    path.write_bytes(lora_bytes(width, **{"modelspec.title": "Zorp", "modelspec.trigger_phrase": "zorp"}))
    return path


def with_run_lora(workspace: Workspace, run: str = "hero", step: int = 100) -> Path:
    """A finished run's LoRA, linked in models/loras, and one of its checkpoints."""
    folder = workspace.outputs / run
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (folder / "run.toml").write_text("")
    (checkpoint / f"{run}-step{step:08d}.safetensors").write_bytes(lora_bytes())
    (folder / f"{run}.safetensors").write_bytes(lora_bytes())
    workspace.loras.mkdir(parents=True, exist_ok=True)
    link = workspace.loras / f"{run}.safetensors"
    link.symlink_to(Path("../../outputs") / run / f"{run}.safetensors")
    return link
