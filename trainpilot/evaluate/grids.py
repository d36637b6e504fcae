"""X/Y/Z grids: every combination of checkpoints, strengths, prompts, seeds, samplers, steps and guidances as pictures.

Axes are named; x goes across a sheet, y down, every other axis with more than one value makes further sheets (z).
Cells whose pictures are the same (the base at any strength) are painted once. Used by the verb and the job `grid`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from trainpilot.config.prompts import Prompt
from trainpilot.evaluate.album import Order, put
from trainpilot.evaluate.painter import Painter, Tell
from trainpilot.evaluate.sheets import Sheet, contact_sheet, draw
from trainpilot.runs.atomic import write_json

Axis = Literal["lora", "strength", "prompt", "seed", "sampler", "steps", "guidance"]
AXES: tuple[Axis, ...] = get_args(Axis)
SCHEMA = 1
JSON, CONTACT, PICTURES = "grid.json", "contact.png", "pictures"


@dataclass(frozen=True)
class Value:
    """One place on an axis. value: of the axis' kind; label: what people read there."""

    value: Any
    label: str


@dataclass(frozen=True)
class Grid:
    """What to paint. axes: at least one value each; beside: LoRA files at strengths that every cell has as well."""

    title: str
    axes: Mapping[Axis, Sequence[Value]]
    prompt: Prompt
    beside: tuple[tuple[Path, float], ...] = ()
    x: Axis = "strength"
    y: Axis = "lora"

    @property
    def z(self) -> list[Axis]:
        """The axes that make further sheets."""
        return [axis for axis in AXES if axis not in (self.x, self.y) and len(self._values(axis)) > 1]

    def _values(self, axis: Axis) -> Sequence[Value]:
        return self.axes.get(axis, ())

    @property
    def count(self) -> int:
        """Cells, those that share a picture counted each."""
        total = 1
        for axis in AXES:
            total *= max(len(self._values(axis)), 1)
        return total

    def order(self, place: Mapping[Axis, Value]) -> Order:
        """What the cell at a place is painted from."""
        prompt = self.prompt
        for axis in ("seed", "sampler", "steps", "guidance"):
            if axis in place:
                prompt = replace(prompt, **{axis: place[axis].value})
        if "prompt" in place:
            prompt = replace(prompt, text=place["prompt"].value)
        lora: Path | None = place["lora"].value if "lora" in place else None
        strength = float(place["strength"].value) if "strength" in place else 1.0
        return Order(prompt, (*([(lora, strength)] if lora is not None else []), *self.beside))

    def sheets(self) -> list[tuple[dict[Axis, Value], list[list[dict[Axis, Value]]]]]:
        """(what this sheet shares, rows of places) for every combination of the z axes."""
        fixed = {axis: self._values(axis)[0] for axis in AXES if len(self._values(axis)) == 1}
        found = []
        for chosen in itertools.product(*(self._values(axis) for axis in self.z)):
            shared = fixed | dict(zip(self.z, chosen, strict=True))
            rows = [
                [shared | _at(self.x, across) | _at(self.y, down) for across in self._values(self.x) or (None,)]
                for down in self._values(self.y) or (None,)
            ]
            found.append((shared, rows))
        return found


def _at(axis: Axis, value: Value | None) -> dict[Axis, Value]:
    return {} if value is None else {axis: value}


def paint(grid: Grid, painter: Painter, folder: Path, tell: Tell = lambda done, of: None) -> dict[str, Any]:
    """Paint what is missing, draw the sheets, and write grid.json into `folder`; its content is returned.

    tell(done, of): different pictures; may raise to stop. What was painted until then is found by the next call.
    """
    sheets = grid.sheets()
    places = [place for _, rows in sheets for row in rows for place in row]
    files = painter.paint([grid.order(place) for place in places], tell)
    by_place = dict(zip(map(_key, places), files, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Image.Image] = []
    described = []
    for number, (shared, rows) in enumerate(sheets):
        name = f"sheet-{number:03d}.png"
        cells = [[by_place[_key(place)] for place in row] for row in rows]
        for file in {file for row in cells for file in row}:
            put(file, folder / PICTURES / file.name)
        subtitle = " · ".join(f"{axis} {shared[axis].label}" for axis in AXES if axis in shared)
        sheet = Sheet(
            grid.title,
            subtitle,
            grid.x,
            [value.label for value in grid._values(grid.x)] or [""],
            [value.label for value in grid._values(grid.y)] or [""],
            cells,
        )
        drawn.append(draw(sheet))
        _save(drawn[-1], folder / name)
        described.append(
            {
                "file": name,
                "shared": {axis: value.label for axis, value in shared.items()},
                "cells": [[f"{PICTURES}/{file.name}" for file in row] for row in cells],
            }
        )
    _save(contact_sheet(drawn), folder / CONTACT)
    document = {
        "schema": SCHEMA,
        "title": grid.title,
        "x": grid.x,
        "y": grid.y,
        "z": grid.z,
        "axes": {axis: [value.label for value in values] for axis, values in grid.axes.items()},
        "prompt": {"negative": grid.prompt.negative, "width": grid.prompt.width, "height": grid.prompt.height},
        "beside": [[path.name, strength] for path, strength in grid.beside],
        "contact": CONTACT,
        "sheets": described,
        "pictures": len(set(files)),
    }
    write_json(folder / JSON, document)
    return document


def _key(place: Mapping[Axis, Value]) -> tuple[Any, ...]:
    return tuple((axis, place[axis].value) for axis in AXES if axis in place)


def _save(image: Image.Image, path: Path) -> None:
    """A sheet as PNG, whole or not at all."""
    import io

    from trainpilot.runs.atomic import write_beside

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_beside(path, buffer.getvalue())
