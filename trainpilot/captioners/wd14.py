"""The WD taggers, third version: booru tags with probabilities, as ONNX graphs.

A model is `model.onnx` (input [batch, side, side, 3], BGR from 0 to 255 on white; output: a probability for each tag)
and `selected_tags.csv`, which names the tags and says whether one is general (0), a character (4) or a rating (9).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trainpilot.captioners import Model
from trainpilot.errors import PilotError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from trainpilot.engine.probe import Device

NAME = "wd14"
LABEL = "WD tagger v3"
ABOUT = "Booru tags, for anime and drawn pictures."
_FILES = ("model.onnx", "selected_tags.csv")
MODELS = tuple(
    Model(f"wd-{name}-tagger-v3", f"WD {label} v3", f"SmilingWolf/wd-{name}-tagger-v3", size, "Apache-2.0", _FILES)
    for name, label, size in (
        ("swinv2", "SwinV2", 467_000_000),
        ("vit", "ViT", 379_000_000),
        ("convnext", "ConvNeXt", 395_000_000),
        ("vit-large", "ViT large", 1_260_000_000),
        ("eva02-large", "EVA02 large", 1_260_000_000),
    )
)
NEEDS = (("model.onnx",), ("selected_tags.csv",))
BATCH = 8
GENERAL, CHARACTER, RATING = 0, 4, 9
# An underscore between two faces' halves (^_^, o_o, (o)_(o)) is no space: each half has at most one letter or digit.
_FACE = re.compile(r"[^\w\s]*\w?[^\w\s]*_[^\w\s]*\w?[^\w\s]*")


class Options(BaseModel):
    """Which tags are taken."""

    model_config = ConfigDict(extra="forbid")

    general: float = Field(0.35, ge=0, le=1, description="Least probability of a general tag")
    character: float = Field(0.85, ge=0, le=1, description="Least probability of a character's name")
    rating: bool = Field(False, description="Add the most probable rating (general, sensitive ...)")
    underscores: bool = Field(False, description="Keep the underscores of tags: long_hair instead of long hair")
    exclude: list[str] = Field([], max_length=1000, description="Tags that are never written")
    most: int = Field(0, ge=0, le=1000, description="Tags of a caption, at most; 0: all that are probable enough")


def load(path: Path, device: Device, options: Options) -> Wd14:
    return Wd14(path, device, options)


class Wd14:
    """The graph with its tags."""

    def __init__(self, path: Path, device: Device, options: Options) -> None:
        self.options = options
        self.names, self.categories = read_tags(path / "selected_tags.csv")
        self.session, self.notes = _session(path / "model.onnx", device)
        [about] = self.session.get_inputs()
        self.input = about.name
        self.single = about.shape[0] == 1  # exported for one picture at a time
        self.side = about.shape[1]
        given = self.session.get_outputs()[0].shape
        if len(about.shape) != 4 or about.shape[3] != 3 or given[-1] not in (len(self.names), None):
            shown = f"input {about.shape}, output {given}"
            allowed = f"input [batch, side, side, 3], output [batch, {len(self.names)}], a number for each tag"
            raise PilotError(path, shown, allowed, "Fetch both files of one tagger.")

    def caption(self, images: Sequence[Picture], look: Callable[[], None]) -> list[str]:
        pixels = np.stack([prepared(image, self.side) for image in images])
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(pixels), 1 if self.single else len(pixels)):
            look()
            part = pixels[start : start + 1] if self.single else pixels
            found.append(self.session.run(None, {self.input: part})[0])
        return [", ".join(self._tags(row)) for row in np.concatenate(found)]

    def _tags(self, probabilities: NDArray[np.float32]) -> list[str]:
        """The tags that are probable enough: characters, then general ones, the most probable first."""
        left_out = {tag.casefold().replace("_", " ") for tag in self.options.exclude}
        least = {CHARACTER: self.options.character, GENERAL: self.options.general}
        picked = []
        for category in (CHARACTER, GENERAL):
            places = [i for i in np.argsort(-probabilities, kind="stable") if self.categories[i] == category]
            picked += [self.names[i] for i in places if probabilities[i] >= least[category]]
        picked = [tag for tag in picked if tag.casefold().replace("_", " ") not in left_out]
        picked = picked[: self.options.most or None]
        ratings = [i for i, category in enumerate(self.categories) if category == RATING]
        if self.options.rating and ratings:
            picked.append(self.names[max(ratings, key=lambda i: probabilities[i])])
        return picked if self.options.underscores else [spaced(tag) for tag in picked]


def read_tags(path: Path) -> tuple[list[str], list[int]]:
    """(names, categories) of selected_tags.csv, in the order of the graph's output. PilotError where it is another."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise PilotError(
            path, f"{type(error).__name__}: {error}", "columns name and category", "Fetch it again."
        ) from error
    return [name for name, _ in rows], [category for _, category in rows]


def spaced(tag: str) -> str:
    """A tag with spaces for underscores; faces stay."""
    return tag if _FACE.fullmatch(tag) else tag.replace("_", " ")


def prepared(image: Picture, side: int) -> NDArray[np.float32]:
    """float32 [side, side, 3], BGR from 0 to 255: the whole picture, on a white square."""
    from PIL import Image

    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    pixels = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _session(path: Path, device: Device) -> tuple[Any, list[str]]:
    """ONNX Runtime's session, and where it computes."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        remedy = "Install it: pip install 'lora-pilot[caption]'"
        raise PilotError("wd14", "onnxruntime is missing", "the packages of the extra `caption`", remedy) from error
    import torch

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()  # ONNX Runtime would count the host's cores
    settings.log_severity_level = 3
    providers, where = ["CPUExecutionProvider"], "the tagger computes on the CPU"
    if device.is_cuda and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls()
        providers = ["CUDAExecutionProvider", *providers]
    elif device.is_cuda:
        where += ", because this onnxruntime is built for it; onnxruntime-gpu uses the GPU"
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=providers)
    except Exception as error:  # its exceptions share no other base
        raise PilotError(
            path, f"{type(error).__name__}: {str(error)[:300]}", "an ONNX graph", "Fetch it again."
        ) from error
    if session.get_providers()[0] == "CUDAExecutionProvider":
        where = "the tagger computes on the GPU"
    elif len(providers) > 1:
        where += ", because ONNX Runtime could not use the GPU"
    return session, [where]
