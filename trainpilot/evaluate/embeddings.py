"""What metrics see a picture with: CLIP, DINOv2, or a model for faces, found on disk or in the Hub's cache.

An embedder turns pictures, their parts, and for CLIP texts into unit vectors, in fp32. A CLIP that is nowhere on disk
is fetched from the Hub where that is allowed; what is missing is told with its reason, and its metrics are left out.
Weights are safetensors, and no repository's own code is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

Vectors = NDArray[np.float32]  # [pictures, width], each of unit length
Kind = Literal["clip", "dino", "face"]
BATCH = 32
_NEEDED = ("config.json", "preprocessor_config.json")


class Missing(Exception):
    """A model that a metric needs is not there; the text says which, and what to do."""


@dataclass
class Embedder:
    """One loaded model. name: as people know it; scale: of CLIP's logits. Vectors are remembered by picture."""

    name: str
    kind: Kind
    model: Any
    processor: Any
    tokenizer: Any
    device: torch.device
    scale: float = 1.0
    _seen: dict[str, Vectors] = field(default_factory=dict)

    def pictures(self, images: Sequence[tuple[str, Image.Image]]) -> Vectors:
        """[n, width] unit vectors of pictures, each given with a key that names its content."""
        unknown = {key: image for key, image in images if key not in self._seen}
        names = list(unknown)
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            vectors = self._forward([unknown[name] for name in part])
            self._seen.update(zip(part, vectors, strict=True))
        return np.stack([self._seen[key] for key, _ in images])

    @torch.no_grad()
    def _forward(self, images: Sequence[Image.Image]) -> Vectors:
        pixels = self.processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
        values = pixels["pixel_values"].to(self.device)
        if self.kind == "clip":
            found = self.model.get_image_features(pixel_values=values)
        else:
            found = self.model(pixel_values=values)
        return _unit(_pooled(found))

    @torch.no_grad()
    def parts(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[n, patches, width] unit vectors of a picture's parts: the patches of a vision transformer, one layer before
        its last, where they still say what is at their place. Not remembered: they are many."""
        tower = self.model.vision_model if self.kind == "clip" else self.model
        first = 1 + int(getattr(tower.config, "num_register_tokens", 0))  # what comes before is not a place
        found = []
        for start in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[start : start + BATCH]]
            values = self.processor(images=part, return_tensors="pt")["pixel_values"].to(self.device)
            states = tower(pixel_values=values, output_hidden_states=True).hidden_states
            found.append(_unit(states[-2][:, first:]))
        return np.concatenate(found)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """[n, width] unit vectors of texts; CLIP alone. What is longer than the model reads is cut at its end."""
        length = int(self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return _unit(_pooled(self.model.get_text_features(input_ids=tokens.input_ids.to(self.device))))


def _pooled(output: Any) -> Tensor:
    """transformers gives features as a tensor, or in an output with a pooled state, by version and model."""
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    return pooled if pooled is not None else output.last_hidden_state[:, 0]


def _unit(vectors: Tensor) -> Vectors:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy().astype(np.float32)


class Embedders:
    """The models of one evaluation, each loaded when it is first asked for.

    wanted: kind -> names to try in order (a path, a name in models/, `owner/name`); fetch: whether to use the network.
    """

    def __init__(
        self,
        workspace: Workspace,
        wanted: dict[Kind, Sequence[str]],
        device: torch.device,
        *,
        fetch: bool,
        say: Callable[[str], None],
    ) -> None:
        self.workspace, self.wanted, self.device, self.fetch, self.say = workspace, wanted, device, fetch, say
        self._loaded: dict[Kind, Embedder | Missing] = {}

    def get(self, kind: Kind) -> Embedder:
        """Raises Missing where none of its names is there."""
        if kind not in self._loaded:
            try:
                self._loaded[kind] = self._load(kind)
            except Missing as missing:
                self._loaded[kind] = missing
        found = self._loaded[kind]
        if isinstance(found, Missing):
            raise found
        return found

    def _load(self, kind: Kind) -> Embedder:
        names = self.wanted.get(kind, ())
        for name in names:
            folder = self._on_disk(name)
            if folder is not None:
                return self._open(kind, name, folder)
        tried = ", ".join(names) or f"nothing is named for {kind} in the protocol"
        if self.fetch and kind == "clip" and names:
            return self._open(kind, names[0], self._fetched(names[0]))
        raise Missing(f"no {kind} model on disk (looked for {tried}); put one of them into {self.workspace.models}")

    def _on_disk(self, name: str) -> Path | None:
        for path in (self.workspace.locate(name, self.workspace.models), self._in_models(name), _in_cache(name)):
            if path is not None and all((path / file).is_file() for file in _NEEDED):
                return path
        return None

    def _in_models(self, name: str) -> Path:
        return self.workspace.models / name.rpartition("/")[2]

    def _fetched(self, name: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        self.say(f"{name} is not on disk: fetching it from the Hub")
        try:
            return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            raise Missing(f"{name} is not on disk and cannot be fetched: {error}") from error

    def _open(self, kind: Kind, name: str, folder: Path) -> Embedder:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel

        from trainpilot.families.loading import silence_progress_bars

        silence_progress_bars()
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = str(given.get("model_type", ""))
        if (kind == "clip") != (family == "clip"):
            raise PilotError(folder, f"a model of type {family}", f"one for {kind}", "Name another in the protocol.")
        options: dict[str, Any] = {"local_files_only": True}
        weights: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, **options}
        loader: Any = CLIPModel if kind == "clip" else AutoModel
        try:
            model = loader.from_pretrained(folder, **weights).to(self.device).eval().requires_grad_(False)
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
            tokenizer = AutoTokenizer.from_pretrained(folder, **options) if kind == "clip" else None
        except (OSError, ValueError) as error:
            remedy = "Fetch the model again, with .safetensors weights."
            raise PilotError(folder, f"cannot be loaded: {error}", "a complete model", remedy) from error
        scale = float(model.logit_scale.exp()) if kind == "clip" else 1.0
        self.say(f"{kind}: {name} from {folder}")
        return Embedder(name, kind, model, processor, tokenizer, self.device, scale)


def _in_cache(name: str) -> Path | None:
    """The newest snapshot of `owner/name` in the Hub's cache."""
    if name.count("/") != 1:
        return None
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    found = list((home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None
