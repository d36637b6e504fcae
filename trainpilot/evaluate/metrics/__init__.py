"""The metrics of an evaluation, one file each, found by looking into this folder; a file that begins with _ is none.

A metric says what it measures, its range, which direction is better, with which model and at what cost, and what it
cannot tell. `measure` gives readings, one for each picture or prompt, from which `interval` makes a mean with its
spread: no metric is shown without it. Taking a metric away is deleting its file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from PIL import Image

from trainpilot.evaluate.embeddings import Embedders
from trainpilot.evaluate.interval import Reading
from trainpilot.evaluate.protocol import Asked

T = TypeVar("T")
Cost = Literal["none", "a pass of the model a picture", "a pass of the base a picture and noise level"]


@dataclass(frozen=True)
class About:
    """What people have to know before they believe a number.

    low, high: what values mean at the ends of the usual range; better: the direction to look for ("neither": a value
    near that of the base is best); needs: the kind of embedder, or "".
    """

    name: str
    label: str
    says: str
    low: str
    high: str
    better: Literal["higher", "lower", "neither"]
    model: str
    cost: Cost
    cannot_tell: str
    digits: int = 2

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Picture:
    """A picture to judge. key: names its content; prompt and seed: of a painted one; file: where it lies."""

    key: str
    image: Image.Image
    file: Path
    prompt: int = -1
    seed: int = -1


@dataclass(frozen=True)
class Finding:
    """Something a metric points at: a painted picture, what it resembles, and how much."""

    picture: Picture
    other: Picture
    value: float
    alarming: bool


@dataclass(frozen=True)
class Measured:
    readings: list[Reading]
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Bench:
    """What the metrics of one evaluation share: the prompts, the base's pictures, the dataset's, and the models.

    base: painted from the prompts without the trigger, by (prompt, seed).
    """

    asked: list[Asked]
    base: dict[tuple[int, int], Picture]
    dataset: list[Picture]
    embedders: Embedders
    _known: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What is the same for every cell is computed once an evaluation."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def of(self, pictures: Sequence[Picture], *groups: str) -> list[Picture]:
        """Those whose prompt belongs to one of the groups; no group: all with the trigger."""
        wanted = groups or ("likeness", "context", "style", "composition")
        return [picture for picture in pictures if self.asked[picture.prompt].group in wanted]

    def painted_by_base(self, *groups: str) -> list[Picture]:
        return self.of(list(self.base.values()), *groups)


class Metric(Protocol):
    """What a file of this folder has. measure raises embeddings.Missing where its model is not there."""

    ABOUT: About

    def measure(self, pictures: list[Picture], bench: Bench) -> Measured: ...


@cache
def metrics() -> dict[str, Metric]:
    """All metrics by name, in the order of their files."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.ABOUT.name: module for module in modules}
