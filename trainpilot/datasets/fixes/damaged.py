"""`damaged`: files that are no whole picture go to the trash, with their captions."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from trainpilot.datasets.mending import Step, Subject

HELP = "Take files away that are no whole picture, with their captions"
EXAMPLE = "damaged"


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    broken = [one for one in dataset.layout.images if dataset.facts[one.image].fault not in ("", "unreadable")]
    yield from dataset.without(broken, lambda found: dataset.facts[found.image].problem)
