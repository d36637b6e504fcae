"""The strength comparison: the same prompts and seeds with the base alone and with the adapter at rising strengths.

Used by the report. How a picture is made is the caller's: this room knows neither models nor samplers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from trainpilot.config.prompts import Prompt

STRENGTHS = (0.5, 0.8, 1.0, 1.2)
MOST_PROMPTS = 4
_MAKING = "making"  # the PNG text entry that holds everything a picture depends on


class Scalable(Protocol):
    """What this needs of `engine.adapters.Adapter`."""

    def disabled(self) -> AbstractContextManager[None]: ...
    def strength(self, factor: float) -> AbstractContextManager[None]: ...


class Save(Protocol):
    """Writes a picture whole, with its prompt and further text: `engine.sampler.save_png`."""

    def __call__(self, image: Image.Image, path: Path, prompt: Prompt, sampler: str, **further: str) -> Path: ...


@dataclass(frozen=True)
class Shot:
    """One picture. strength: None is the base model alone."""

    strength: float | None
    file: Path
    image: Image.Image

    @property
    def label(self) -> str:
        return label(self.strength)


@dataclass(frozen=True)
class Row:
    """One prompt and its pictures, the base first."""

    prompt: Prompt
    shots: list[Shot]


def label(strength: float | None) -> str:
    """How a strength is named, in pictures and files: base, 0.5, 1.0."""
    return "base" if strength is None else f"{strength:.1f}"


def compare(
    adapter: Scalable,
    prompts: Sequence[Prompt],
    paint: Callable[[int], Image.Image],
    save: Save,
    folder: Path,
    *,
    weights: str,
    step: int,
    tell: Callable[[int, int], None],
) -> list[Row]:
    """A row for each of the first `MOST_PROMPTS` prompts, kept as PNG in `folder`.

    paint(number) makes prompt `number` with the adapter as it then is, and may raise to stop. A picture that is in the
    folder already, made from the same prompt, strength and `weights` (a hash), is not made again: what a stopped
    comparison had finished counts. tell(done, of) is called before the first picture and after each.
    """
    shown = list(prompts[:MOST_PROMPTS])
    strengths = (None, *STRENGTHS)
    of = len(shown) * len(strengths)
    rows = []
    tell(0, of)
    for number, prompt in enumerate(shown):
        shots: list[Shot] = []
        for strength in strengths:
            file = folder / f"step-{step:08d}_p{number}_{label(strength)}.png"
            making = json.dumps({**asdict(prompt), "strength": strength, "weights": weights}, sort_keys=True)
            image = _kept(file, making)
            if image is None:
                with adapter.disabled() if strength is None else adapter.strength(strength):
                    image = paint(number)
                save(image, file, prompt, prompt.sampler, strength=label(strength), **{_MAKING: making})
            shots.append(Shot(strength, file, image))
            tell(number * len(strengths) + len(shots), of)
        rows.append(Row(prompt, shots))
    return rows


def _kept(file: Path, making: str) -> Image.Image | None:
    """The picture in `file` where it was made just so. One that cannot be read is made again."""
    try:
        with Image.open(file) as found:
            found.load()
            return found.convert("RGB") if found.text.get(_MAKING) == making else None  # type: ignore[attr-defined]
    except (OSError, SyntaxError, ValueError):
        return None
