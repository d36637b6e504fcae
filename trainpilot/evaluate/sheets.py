"""Labelled sheets of a grid, and the contact sheet of them all, as pictures. Used by `grids`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_GROUND, _INK, _MUTED = (246, 248, 250), (24, 34, 45), (84, 98, 112)
_GAP, _EDGE = 8, 24
_LEAST, _MOST = 96, 512  # px of a picture's longer side on a sheet
_LABELS = 220  # px at most for the labels of rows
CONTACT_SIDE = 640  # px of a sheet's longer side on the contact sheet


@dataclass(frozen=True)
class Sheet:
    """One sheet. across, down: labels of columns and rows; cells: files, row by row."""

    title: str
    subtitle: str
    axis: str
    across: Sequence[str]
    down: Sequence[str]
    cells: Sequence[Sequence[Path]]


def draw(sheet: Sheet) -> Image.Image:
    """The sheet as one picture. Pictures keep their pixels between 96 and 512 px."""
    large, plain = ImageFont.load_default(22), ImageFont.load_default(15)
    pictures = [[_opened(file) for file in row] for row in sheet.cells]
    wide = max(picture.width for row in pictures for picture in row)
    tall = max(picture.height for row in pictures for picture in row)
    labels = min(_LABELS, max(math.ceil(plain.getlength(label)) for label in sheet.down) + _GAP)
    heading = 30 + (22 if sheet.subtitle else 0)
    width = 2 * _EDGE + labels + len(sheet.across) * (wide + _GAP)
    height = 2 * _EDGE + heading + 24 + len(sheet.down) * (tall + _GAP)
    page = Image.new("RGB", (max(width, 320), height), _GROUND)
    pen = ImageDraw.Draw(page)
    room = page.width - 2 * _EDGE
    pen.text((_EDGE, _EDGE - 6), fitted(sheet.title, large, room), _INK, large)
    pen.text((_EDGE, _EDGE + 24), fitted(sheet.subtitle, plain, room), _MUTED, plain)
    left, top = _EDGE + labels, _EDGE + heading + 24
    for number, label in enumerate(sheet.across):
        pen.text((left + number * (wide + _GAP), top - 22), fitted(label, plain, wide), _INK, plain)
    for number, (label, row) in enumerate(zip(sheet.down, pictures, strict=True)):
        y = top + number * (tall + _GAP)
        pen.text((_EDGE, y), fitted(label, plain, labels - _GAP), _INK, plain)
        for column, picture in enumerate(row):
            page.paste(picture, (left + column * (wide + _GAP), y))
    return page


def contact_sheet(sheets: Sequence[Image.Image]) -> Image.Image:
    """All sheets, small, in about a square; one alone is itself."""
    if len(sheets) == 1:
        return sheets[0]
    small = []
    for sheet in sheets:
        copy = sheet.copy()
        copy.thumbnail((CONTACT_SIDE, CONTACT_SIDE), Image.Resampling.LANCZOS)
        small.append(copy)
    columns = math.ceil(math.sqrt(len(small)))
    wide, tall = max(one.width for one in small), max(one.height for one in small)
    rows = -(-len(small) // columns)
    page = Image.new("RGB", (_EDGE + columns * (wide + _GAP), _EDGE + rows * (tall + _GAP)), _GROUND)
    for number, one in enumerate(small):
        place = (_EDGE // 2 + number % columns * (wide + _GAP), _EDGE // 2 + number // columns * (tall + _GAP))
        page.paste(one, place)
    return page


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as found:
        image = found.convert("RGB")
    longer = max(image.size)
    wanted = min(max(longer, _LEAST), _MOST)
    if wanted == longer:
        return image
    size = (max(1, round(image.width * wanted / longer)), max(1, round(image.height * wanted / longer)))
    # Enlarged pixel by pixel: what a small model painted should look as small as it is.
    return image.resize(size, Image.Resampling.NEAREST if wanted > longer else Image.Resampling.LANCZOS)


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """The text, or as much of its beginning as fits, with dots."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"
