"""Stage `measure`: does the model draw what a caption says? Two independent measures of 200 generated scenes.

The pixel measure knows only the drawing rules: background from the border, shape mask from what differs from it,
colour by nearest palette entry, position by centroid, shape by the best overlap with outlines drawn at the same place
and size. The CLIP measure asks the tiny CLIP which of an attribute's alternatives fits the picture best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import scenes

ATTRIBUTES = ("shape", "colour", "position", "background")
_DIFFERENT = 60.0  # distance in RGB from which a pixel is not background
_LEAST = 12  # pixels of the smallest thing that counts as a shape


@dataclass(frozen=True)
class Seen:
    """What a picture shows; None where nothing was found."""

    shape: str | None
    colour: str | None
    position: str | None
    background: str


def _nearest(colour: NDArray[np.float64], palette: dict[str, scenes.Colour]) -> str:
    return min(palette, key=lambda name: float(np.abs(colour - np.array(palette[name])).sum()))


@cache
def _template(shape: str, size: int) -> NDArray[np.bool_]:
    """The shape's outline filling a square of `size` pixels."""
    side = size * 4
    points = np.array(scenes.OUTLINES[shape])
    low, high = points.min(0), points.max(0)
    scale = (side - 1) / (high - low)
    placed = [tuple(point) for point in (points - low) * scale]
    from PIL import ImageDraw

    canvas = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(canvas)
    pen.polygon(placed, fill=255)
    if shape == "ring":
        circle = np.array(scenes.OUTLINES["circle"]) * scenes.RING_HOLE
        pen.polygon([tuple(point) for point in (circle - low) * scale], fill=0)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX)) > 127


def _shape(mask: NDArray[np.bool_]) -> str:
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    aspect = cut.shape[1] / cut.shape[0]
    square = np.asarray(Image.fromarray(cut.astype(np.uint8) * 255).resize((48, 48), Image.Resampling.BILINEAR)) > 127

    def fit(shape: str) -> float:
        template = _template(shape, 48)
        overlap = (square & template).sum() / max((square | template).sum(), 1)
        points = np.array(scenes.OUTLINES[shape])
        width, height = points.max(0) - points.min(0)
        # Stretched to a square a diamond and a turned square look alike: their proportions tell them apart.
        return float(overlap) - 0.5 * abs(np.log(aspect * height / width))

    return max(scenes.SHAPES, key=fit)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece (four neighbours): specks elsewhere do not move the box around the shape."""
    left, best = mask.copy(), np.zeros_like(mask)
    while left.any():
        piece = np.zeros_like(mask)
        piece[tuple(np.argwhere(left)[0])] = True
        while True:
            grown = piece.copy()
            grown[1:] |= piece[:-1]
            grown[:-1] |= piece[1:]
            grown[:, 1:] |= piece[:, :-1]
            grown[:, :-1] |= piece[:, 1:]
            grown &= left
            if (grown == piece).all():
                break
            piece = grown
        left &= ~piece
        if piece.sum() > best.sum():
            best = piece
    return best


def look(picture: Image.Image) -> Seen:
    """Read the attributes of a picture with one shape."""
    pixels = np.asarray(picture.convert("RGB")).astype(np.float64)
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), pixels[:, :2].reshape(-1, 3)])
    ground = np.median(border, axis=0)
    mask = np.linalg.norm(pixels - ground, axis=2) > _DIFFERENT
    background = _nearest(ground, scenes.BACKGROUNDS)
    mask = _largest(mask)
    if mask.sum() < _LEAST:
        return Seen(None, None, None, background)
    ys, xs = np.nonzero(mask)
    # The middle of the box: a triangle's centre of mass lies below the centre it was drawn around.
    x, y = (xs.min() + xs.max() + 1) / 2, (ys.min() + ys.max() + 1) / 2
    position = min(
        scenes.POSITIONS,
        key=lambda name: (scenes.POSITIONS[name][0] - x) ** 2 + (scenes.POSITIONS[name][1] - y) ** 2,
    )
    colours = {name: value for name, value in scenes.PALETTE.items() if name != background}
    return Seen(_shape(mask), _nearest(np.median(pixels[mask], axis=0), colours), position, background)


def right(picture: Image.Image, scene: scenes.Scene) -> dict[str, bool]:
    """Which attributes of a one-part scene the picture shows."""
    seen, part = look(picture), scene.parts[0]
    wanted = {"shape": part.shape, "colour": part.colour, "position": part.position, "background": scene.background}
    return {name: getattr(seen, name) == value for name, value in wanted.items()}


def measured_scenes(count: int, seed: str = "measured scenes") -> list[scenes.Scene]:
    """`count` scenes of one part, a function of the seed."""
    random = Random(seed)
    return [scenes.random_scene(random, two_shapes=0.0) for _ in range(count)]


def accuracy(pictures: Sequence[Image.Image], wanted: Sequence[scenes.Scene]) -> dict[str, float]:
    """Share of right answers by attribute, and their mean as "all"."""
    answers = [right(picture, scene) for picture, scene in zip(pictures, wanted, strict=True)]
    found = {name: sum(answer[name] for answer in answers) / len(answers) for name in ATTRIBUTES}
    return found | {"all": sum(found.values()) / len(found)}
