"""Which base models are on disk, and which of them a name means. Used by the merge and by `trainpilot models`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainpilot.config.describe import closest
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

# Smaller files are LoRAs, VAEs and embeddings; listing them as broken base models would only confuse.
LEAST_FILE = 1_000_000_000
_DEPTH = 3


def candidates(workspace: Workspace) -> Iterator[Path]:
    """Diffusers folders and large .safetensors files in models/, at most three folders deep; LoRAs and captioners'
    models are left out."""
    if workspace.models.is_dir():
        yield from _below(workspace.models, _DEPTH, (workspace.loras, workspace.models / "captioners"))


def _below(folder: Path, depth: int, leave: tuple[Path, ...]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path in leave or path.name.startswith("."):
            continue
        if path.is_dir():
            if (path / "model_index.json").is_file():
                yield path
            elif depth > 1:
                yield from _below(path, depth - 1, leave)
        elif path.suffix == ".safetensors" and path.stat().st_size >= LEAST_FILE:
            yield path


def _on_hub_cache(given: str) -> Path | None:
    """The newest snapshot of `owner/name` in the hub's cache, where it was downloaded before."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    snapshots = home / "hub" / f"models--{given.replace('/', '--')}" / "snapshots"
    found = [path for path in snapshots.glob("*") if (path / "model_index.json").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def find_base(workspace: Workspace, given: str) -> Path:
    """The absolute path of a base model: a path, a name in models/, or `owner/name` of the hub's cache.

    PilotError lists the models that are on disk.
    """
    names = [str(path.relative_to(workspace.models)) for path in candidates(workspace)]
    listed = ", ".join(names) or f"a path (nothing is in {workspace.models} yet)"
    if not given:
        raise PilotError("model.base", "nothing", listed, "Name a base model with --base-model.")
    for variant in (given, f"{given}.safetensors"):
        path = workspace.locate(variant, workspace.models)
        if path.exists():
            return path.resolve()
    cached = _on_hub_cache(given) if given.count("/") == 1 else None
    if cached:
        return cached.resolve()
    near = closest(given, names)
    remedy = f"Did you mean {' or '.join(near)}?" if near else "Check the path, or put the model into models/."
    raise PilotError("model.base", f"{given} does not exist", listed, remedy)
