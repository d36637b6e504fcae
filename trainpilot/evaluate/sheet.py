"""The contact sheet of a strength comparison, one PNG to send or post. Used by the report."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from trainpilot.evaluate.sheets import fitted
from trainpilot.evaluate.strengths import Row

_GROUND, _INK, _MUTED, _ACCENT = (246, 248, 250), (24, 34, 45), (84, 98, 112), (11, 104, 196)
_GAP, _EDGE = 12, 28
_LEAST, _MOST = 160, 384  # px of a picture's longer side on the sheet


def sheet(rows: Sequence[Row], title: str) -> Image.Image:
    """Prompts as rows, strengths as columns, all labelled. title: one line above."""
    cells = [[_scaled(shot.image) for shot in row.shots] for row in rows]
    widths = [max(cell.width for cell in column) for column in zip(*cells, strict=True)]
    large, plain = ImageFont.load_default(24), ImageFont.load_default(15)
    heading, caption, tag = 34, 24, 22  # px of height for title, prompt and strength
    width = 2 * _EDGE + sum(widths) + _GAP * (len(widths) - 1)
    heights = [max(cell.height for cell in row) for row in cells]
    height = 2 * _EDGE + heading + sum(heights) + len(rows) * (caption + tag + 2 * _GAP)
    page = Image.new("RGB", (width, height), _GROUND)
    pen = ImageDraw.Draw(page)
    room = width - 2 * _EDGE
    pen.text((_EDGE, _EDGE), fitted(title, large, room), _INK, large)
    y = _EDGE + heading
    for row, line, tall in zip(rows, cells, heights, strict=True):
        y += _GAP
        seed = f"   seed {row.prompt.seed}"
        text = fitted(row.prompt.text or "(empty prompt)", plain, room - plain.getlength(seed))
        pen.text((_EDGE, y), text, _INK, plain)
        pen.text((_EDGE + plain.getlength(text), y), seed, _MUTED, plain)
        y += caption
        x = _EDGE
        for shot, cell, wide in zip(row.shots, line, widths, strict=True):
            page.paste(cell, (x, y))
            words = "base model" if shot.strength is None else f"strength {shot.label}"
            pen.text((x, y + tall + 4), words, _ACCENT if shot.strength == 1 else _MUTED, plain)
            x += wide + _GAP
        y += tall + tag + _GAP
    return page


def _scaled(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    wanted = min(max(longer, _LEAST), _MOST)
    if wanted == longer:
        return image
    size = (max(1, round(image.width * wanted / longer)), max(1, round(image.height * wanted / longer)))
    return image.resize(size, Image.Resampling.LANCZOS)
