"""`smaller`: pictures of many pixels are scaled down, which makes scanning and uploading faster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.mending import Step, Subject, repainted

HELP = "Scale pictures down whose longer side is above a limit"
EXAMPLE = "smaller --side 2048"


class Params(BaseModel):
    """side: of the longer side, px. Training at 1024 takes nothing from more than about 2048."""

    model_config = ConfigDict(extra="forbid")

    side: int = Field(2048, ge=256, le=16384, description="Longest side that is left as it is, px")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    def shrunk(image: Image.Image) -> Image.Image:
        image.thumbnail((params.side, params.side), Image.Resampling.LANCZOS)
        return image

    for found in dataset.whole:
        size = dataset.facts[found.image].size
        if max(size) > params.side:
            yield Step(found.image, f"{size[0]}x{size[1]}", partial(repainted, found.image, shrunk))
