"""BLIP: one short sentence (Li et al. 2022, "BLIP: Bootstrapping Language-Image Pre-training")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.captioners import Model

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainpilot.engine.probe import Device

NAME = "blip"
LABEL = "BLIP"
ABOUT = "One short sentence for each picture. Small and quick."
MODELS = (Model("blip-large", "BLIP large", "Salesforce/blip-image-captioning-large", 1_880_000_000, "BSD-3-Clause"),)
NEEDS = (
    ("config.json",),
    ("model.safetensors",),
    ("tokenizer.json", "vocab.txt"),
    ("preprocessor_config.json", "processor_config.json"),
)
BATCH = 16


class Options(BaseModel):
    """How sentences are made."""

    model_config = ConfigDict(extra="forbid")

    start: str = Field("", max_length=200, description="Words that every caption begins with, such as: a photo of")
    beams: int = Field(3, ge=1, le=10, description="Sentences that are followed at once; more are slower and better")
    longest: int = Field(75, ge=5, le=200, description="Tokens of a caption, at most")
    shortest: int = Field(5, ge=0, le=100, description="Tokens of a caption, at least")


def load(path: Path, device: Device, options: Options) -> Blip:
    return Blip(path, device, options)


class Blip:
    """The model with its processor."""

    def __init__(self, path: Path, device: Device, options: Options) -> None:
        from transformers import BlipForConditionalGeneration

        from trainpilot.captioners._generation import load_parts

        self.device, self.options = device, options
        self.notes: list[str] = []
        self.processor, self.model = load_parts(BlipForConditionalGeneration, path, device)

    def caption(self, images: Sequence[Image], look: Callable[[], None]) -> list[str]:
        from trainpilot.captioners._generation import generate

        given: dict[str, Any] = {"images": list(images), "return_tensors": "pt"}
        if self.options.start:
            given |= {"text": [self.options.start] * len(images), "padding": True}
        tokens = generate(
            self.model,
            self.processor(**given),
            self.device,
            look,
            num_beams=self.options.beams,
            max_new_tokens=self.options.longest,
            min_new_tokens=min(self.options.shortest, self.options.longest),
        )
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
