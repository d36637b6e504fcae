"""Florence-2: from one sentence to a paragraph, by its task prompts (Xiao et al. 2023, "Florence-2").

The models are those of florence-community: the weights of microsoft/Florence-2 in the layout that transformers loads
without running a repository's code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.captioners import Model

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainpilot.engine.probe import Device

NAME = "florence2"
LABEL = "Florence-2"
ABOUT = "Sentences or a paragraph that describe a realistic picture in detail."
MODELS = (
    Model("florence-2-large", "Florence-2 large", "florence-community/Florence-2-large", 1_650_000_000, "MIT"),
    Model("florence-2-base", "Florence-2 base", "florence-community/Florence-2-base", 550_000_000, "MIT"),
    Model("florence-2-large-ft", "Florence-2 large, fine-tuned", "florence-community/Florence-2-large-ft",
          1_650_000_000, "MIT"),
    Model("florence-2-base-ft", "Florence-2 base, fine-tuned", "florence-community/Florence-2-base-ft",
          550_000_000, "MIT"),
)  # fmt: skip
NEEDS = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
BATCH = 8
TASKS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "paragraph": "<MORE_DETAILED_CAPTION>"}


class Options(BaseModel):
    """How much is said."""

    model_config = ConfigDict(extra="forbid")

    task: Literal["short", "detailed", "paragraph"] = Field(
        "detailed", description="One sentence, some, or a paragraph"
    )
    beams: int = Field(3, ge=1, le=10, description="Sentences that are followed at once; more are slower and better")
    longest: int = Field(256, ge=5, le=1024, description="Tokens of a caption, at most")


def load(path: Path, device: Device, options: Options) -> Florence2:
    return Florence2(path, device, options)


class Florence2:
    """The model with its processor."""

    def __init__(self, path: Path, device: Device, options: Options) -> None:
        from transformers import Florence2ForConditionalGeneration

        from trainpilot.captioners._generation import load_parts

        self.device, self.options = device, options
        self.notes = [f"task prompt: {TASKS[options.task]}"]
        self.processor, self.model = load_parts(Florence2ForConditionalGeneration, path, device)

    def caption(self, images: Sequence[Image], look: Callable[[], None]) -> list[str]:
        from trainpilot.captioners._generation import generate

        task = TASKS[self.options.task]
        inputs = self.processor(images=list(images), text=[task] * len(images), return_tensors="pt", padding=True)
        tokens = generate(
            self.model,
            inputs,
            self.device,
            look,
            num_beams=self.options.beams,
            max_new_tokens=self.options.longest,
        )
        return [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
