"""`duplicates`: of every group of copies the largest stays; the others go to the trash, with their captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.layouts import Found
from trainpilot.datasets.mending import Step, Subject

HELP = "Keep one of each group of copies"
EXAMPLE = "duplicates --near"


class Params(BaseModel):
    """near: also pictures that show the same (cropped, resized, recompressed, mirrored, brighter), the largest kept."""

    model_config = ConfigDict(extra="forbid")

    near: bool = Field(False, description="Also versions of one picture, of which the largest is kept")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    kept: dict[Path, Path] = {}
    if params.near:
        for first, *others in dataset.copies():
            kept |= {other.image: first.image for other in others}
    else:
        same: dict[str, Path] = {}
        for found in dataset.whole:
            first_path = same.setdefault(dataset.facts[found.image].sha256, found.image)
            if first_path != found.image:
                kept[found.image] = first_path
    spare: list[Found] = [found for found in dataset.whole if found.image in kept]
    yield from dataset.without(spare, lambda found: f"like {kept[found.image].name}")
