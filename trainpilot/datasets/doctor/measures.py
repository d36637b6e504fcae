"""What can be measured on a picture's pixels: detail, tones, borders, and the small pictures that are compared.

Used by `reading.py` on every picture, once. Arrays are numpy; nothing here opens a file or has an opinion.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

TILE, MOST_TILES = 128, 24  # px; detail is looked for in so many places
SMALL = 32  # px: side of the small picture that duplicates are verified on
MARKS = 64  # cells: side of the grid of strong edges
PERCENTILES = (1, 5, 50, 95, 99)
_SCALES = 5
_WHOLE, _GONE = 0.3, 0.09  # ratio of energies to the next coarser scale: of detail that is there, and of none
_ROUNDING = 2.0  # energy of second differences of rounding errors, twice 6/12, and as much again from decoders
_TRUE = 1.4  # photographs enlarged by 2 and by 4 lose 0.6 and 1.5 scales by this measure
_LEAST_CONTRAST = 60.0  # energy at the coarse scales below which a tile shows nothing that could be sharp
_MOST_EDGE = 0.35  # share of a side that a border may take
_LEVEL_TONE, _STEP_TONE, _STEP_SHARE, _STEP_PARTS = 6, 24, 0.35, 8


def detail(grey: Pixels) -> float:
    """How fine the picture's detail is: 1 for that of its own pixels, 0.5 for that of a picture of half the size.

    Across a sharp edge, second differences have half the energy at each finer scale; across a smooth slope a
    sixteenth, which is what enlarging or blurring leaves of the finest scales. The sharpest quarter of the tiles that
    show something decides, so that a soft background does not count. 1 where nothing can be told: a flat picture, or
    one smaller than 32 px.
    """
    tiles = _tiles(grey)
    if tiles is None:
        return 1.0
    energies = []
    level: NDArray[np.floating] = tiles.astype(np.float32)
    for _ in range(min(_SCALES, int(math.log2(tiles.shape[1])) - 2)):
        across = level[:, :, :-2] - 2 * level[:, :, 1:-1] + level[:, :, 2:]
        down = level[:, :-2] - 2 * level[:, 1:-1] + level[:, 2:]
        energies.append(np.mean(across * across, axis=(1, 2)) + np.mean(down * down, axis=(1, 2)))
        level = (level[:, ::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, ::2] + level[:, 1::2, 1::2]) / 4
    # What rounding to whole tones adds is no detail; means of four carry a quarter of it.
    rounding = _ROUNDING / 4.0 ** np.arange(len(energies))
    table = np.maximum(np.stack(energies) - rounding[:, None], 1e-6)  # scale, tile; the finest first
    table = table[:, table[-2:].sum(0) > _LEAST_CONTRAST]
    if not table.size:
        return 1.0
    ratios = table[:-1] / table[1:]
    missing = np.clip(np.log(_WHOLE / ratios) / math.log(_WHOLE / _GONE), 0, 1)
    # A scale is missing only where all finer ones are: fine noise over a blurred picture is detail of a kind.
    lost = np.cumprod(missing, axis=0).sum(0)
    return float(2.0 ** (-_TRUE * np.percentile(lost, 25)))


def _tiles(grey: Pixels) -> NDArray[np.uint8] | None:
    """Tiles spread evenly over the picture: [tile, side, side]; None where it is too small."""
    height, width = grey.shape
    side = TILE
    while side > min(width, height):
        side //= 2
    if side < 32:
        return None
    across, down = width // side, height // side
    thin = max(1.0, math.sqrt(across * down / MOST_TILES))
    across, down = max(1, int(across / thin)), max(1, int(down / thin))
    lefts = np.linspace(0, width - side, across).astype(int)
    tops = np.linspace(0, height - side, down).astype(int)
    return np.stack([grey[top : top + side, left : left + side] for top in tops for left in lefts])


def tones(grey: Pixels) -> tuple[int, ...]:
    """Brightness, 0 to 255, below which 1, 5, 50, 95 and 99% of the pixels lie."""
    counts = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    return tuple(int(np.searchsorted(counts, counts[-1] * share / 100)) for share in PERCENTILES)


def borders(pixels: Pixels) -> Box:
    """Bars of one colour at (left, top, right, bottom), in px of `pixels` [height, width, 3]; 0 where there is none.

    A bar ends in a straight line: the next row differs from it along its whole length. The plain ground around an
    object does not.
    """
    levels = pixels.astype(np.int16)
    return (
        _bar(np.swapaxes(levels, 0, 1)),
        _bar(levels),
        _bar(np.swapaxes(levels, 0, 1)[::-1]),
        _bar(levels[::-1]),
    )


def _bar(rows: NDArray[np.int16]) -> int:
    """Rows of one colour at the beginning."""
    colour = np.median(rows[0], axis=0)
    most = int(len(rows) * _MOST_EDGE)
    apart = np.abs(rows[: most + 3] - colour).max(axis=2)
    plain = (apart <= _LEVEL_TONE).mean(axis=1) >= 0.98
    count = int(np.argmin(plain)) if not plain.all() else 0
    if not 0 < count <= most:
        return 0
    beyond = apart[count : count + 3].max(axis=0) > _STEP_TONE
    parts = np.array([part.mean() for part in np.array_split(beyond, _STEP_PARTS)])
    return count if np.count_nonzero(parts >= _STEP_SHARE) >= _STEP_PARTS - 1 else 0


def small_picture(image: Image.Image) -> Pixels:
    """The whole picture as uint8 [32, 32, 3], its shape disregarded."""
    return np.asarray(image.resize((SMALL, SMALL), Image.Resampling.BOX))


def marks(grey: Image.Image) -> NDArray[np.bool_]:
    """Strong vertical and horizontal edges on a 64 x 64 grid: bool [2, 64, 64], for what repeats in every picture."""
    levels = np.asarray(grey.resize((MARKS * 2, MARKS * 2), Image.Resampling.BOX)).astype(np.int16)
    found = []
    for axis in (1, 0):
        steps = np.abs(np.diff(levels, axis=axis, prepend=0))
        if axis == 1:
            steps[:, 0] = 0
        else:
            steps[0] = 0
        found.append(steps.reshape(MARKS, 2, MARKS, 2).max(axis=(1, 3)) > 20)
    return np.stack(found)
