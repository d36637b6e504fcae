"""Pictures that are copies of one another: cropped a little, resized, recompressed, mirrored, brighter or darker.

Two stages over small pictures of 32 x 32 px, which a reading makes anyway. A 64-bit perceptual hash (signs of the
lowest DCT coefficients, after Zauner 2010) proposes pairs: every hash is compared with every other, which is exact and,
at one XOR and one bit count each, takes seconds for tens of thousands. Then the pixels decide: one picture is
aligned to the other (scale and shift, by Gauss-Newton steps as in Lucas and Kanade 1981) and the colours that remain
different are measured. Used by the doctor and by `trainpilot dataset fix`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 32
BITS = 64
MOST_BITS = 16  # different bits of a pair that is worth a look at the pixels
LEAST_ROUGHLY = 0.5  # correlation of 8 x 8 colours of a pair that is worth aligning
CROPS = (0.04, 0.09)  # a share of each side; hashes of so cropped pictures find the uncropped ones
LEAST_ALIKE = 0.955  # correlation of the aligned colours
LEAST_CORNER = 0.5  # share of the contrast that may differ in any one of 64 places
LEAST_OVERLAP = 0.72  # of the area, after alignment
WHITE, BRIGHT = 235, 150
FLAT = 2.0  # standard deviation of tones below which a picture has nothing to align
_ROWS, _COLUMNS = 128, 4096  # hashes compared at once
_BATCH = 512  # pairs aligned at once
_STEPS = 8
Small = NDArray[np.uint8]
Float = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, order=True)
class Pair:
    """Pictures first < second (indices). alike: correlation of their aligned colours; mirrored: left is right."""

    first: int
    second: int
    alike: float
    mirrored: bool = False


def find(pictures: Small, tell: Callable[[], None] | None = None) -> list[Pair]:
    """Pairs of copies among uint8 [n, 32, 32, 3], sorted. tell is called now and then; what it raises ends the search.

    Byte-equal files need no search: compare their SHA-256 first and give one of each.
    """
    if pictures.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"pictures are [n, {SIDE}, {SIDE}, 3], not {pictures.shape}")
    if len(pictures) < 2:
        return []
    best: dict[tuple[int, int], Pair] = {}
    rough = _rough(pictures)
    for first, second, mirrored in candidates(pictures, tell):
        first, second = _roughly_alike(rough, first, second, mirrored)
        for start in range(0, len(first), _BATCH):
            if tell:
                tell()
            rows = slice(start, start + _BATCH)
            left = pictures[first[rows]]
            right = pictures[second[rows]][:, :, ::-1] if mirrored else pictures[second[rows]]
            for one, two, alike in zip(first[rows], second[rows], likeness(left, right), strict=True):
                key = (int(min(one, two)), int(max(one, two)))
                if alike >= LEAST_ALIKE and (key not in best or best[key].alike < alike):
                    best[key] = Pair(*key, round(float(alike), 4), mirrored)
    return sorted(best.values())


def groups(pairs: list[Pair]) -> list[list[int]]:
    """Indices that belong together, each group sorted: a copy of a copy is a copy."""
    leader: dict[int, int] = {}

    def root(index: int) -> int:
        while leader.setdefault(index, index) != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for pair in pairs:
        leader[max(root(pair.first), root(pair.second))] = min(root(pair.first), root(pair.second))
    found: dict[int, list[int]] = {}
    for index in sorted(leader):
        found.setdefault(root(index), []).append(index)
    return list(found.values())


def candidates(pictures: Small, tell: Callable[[], None] | None = None) -> Iterator[tuple[Indices, Indices, bool]]:
    """(first, second, mirrored): index arrays of pairs whose hashes are close; each pair once per kind."""
    coefficients = _coefficients(_grey(pictures))
    plain = _packed(coefficients)
    for mirrored in (False, True):
        found = [_close(plain, _packed(coefficients * _MIRROR) if mirrored else plain, True, tell)]
        for crop in CROPS:
            inner = _coefficients(_cropped(_grey(pictures), crop))
            found.append(_close(_packed(inner * _MIRROR) if mirrored else _packed(inner), plain, False, tell))
        pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
        yield pairs[:, 0], pairs[:, 1], mirrored


def _rough(pictures: Small) -> Float:
    """8 x 8 colours of each picture, of mean 0 and length 1: [n, 8, 8, 3]."""
    colours = pictures.reshape(len(pictures), 8, 4, 8, 4, 3).mean((2, 4), dtype=np.float32)
    colours -= colours.mean((1, 2, 3), keepdims=True)
    return colours / np.maximum(np.sqrt((colours**2).sum((1, 2, 3), keepdims=True)), 1e-6)


def _roughly_alike(rough: Float, first: Indices, second: Indices, mirrored: bool) -> tuple[Indices, Indices]:
    """The pairs that are worth aligning, which costs a thousand times as much as this."""
    kept = np.zeros(len(first), bool)
    for start in range(0, len(first), _COLUMNS):
        rows = slice(start, start + _COLUMNS)
        other = rough[second[rows]][:, :, ::-1] if mirrored else rough[second[rows]]
        kept[rows] = np.einsum("nijc,nijc->n", rough[first[rows]], other) >= LEAST_ROUGHLY
    return first[kept], second[kept]


def hashes(pictures: Small) -> NDArray[np.uint64]:
    """The 64-bit perceptual hash of each picture."""
    return _packed(_coefficients(_grey(pictures)))


def close_pairs(hashes: NDArray[np.uint64]) -> Indices:
    """Pairs [m, 2] of indices, first < second, whose hashes differ in at most MOST_BITS."""
    return _close(hashes, hashes, True, None)


def _close(
    rows: NDArray[np.uint64], columns: NDArray[np.uint64], symmetric: bool, tell: Callable[[], None] | None
) -> Indices:
    """Pairs [m, 2] of indices whose hashes differ in at most MOST_BITS, themselves left out."""

    def block(top: int) -> list[Indices]:
        # Tiles that stay in a core's cache: with whole rows, memory would be the bottleneck.
        found = []
        for left in range(top if symmetric else 0, len(columns), _COLUMNS):
            apart = np.bitwise_count(rows[top : top + _ROWS, None] ^ columns[None, left : left + _COLUMNS])
            row, column = np.nonzero(apart <= MOST_BITS)
            pairs = np.stack([row + top, column + left], axis=1)
            found.append(pairs[pairs[:, 0] < pairs[:, 1]] if symmetric else pairs[pairs[:, 0] != pairs[:, 1]])
        return found

    found = [np.empty((0, 2), np.intp)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for tiles in pool.map(block, range(0, len(rows), _ROWS)):
            if tell:
                tell()
            found += tiles
    return np.concatenate(found)


def _basis() -> Float:
    """DCT-II: row k holds cos(pi (2 x + 1) k / 2n), for the lowest frequencies."""
    places = (2 * np.arange(SIDE) + 1) * math.pi / (2 * SIDE)
    basis: Float = np.cos(np.arange(12)[:, None] * places[None]).astype(np.float32)
    return basis


# The 64 lowest (down, across) frequencies but the mean; a mirrored picture has the odd ones across negated.
_ORDER = sorted(((v, u) for v in range(12) for u in range(12) if v or u), key=lambda f: (f[0] ** 2 + f[1] ** 2, f))
_DOWN, _ACROSS = (np.array([f[axis] for f in _ORDER[:BITS]]) for axis in (0, 1))
_MIRROR = np.where(_ACROSS % 2, -1, 1).astype(np.float32)


def _coefficients(grey: Float) -> Float:
    basis = _basis()
    return np.asarray((basis @ grey @ basis.T)[:, _DOWN, _ACROSS], np.float32)


def _packed(coefficients: Float) -> NDArray[np.uint64]:
    return np.ascontiguousarray(np.packbits(coefficients > 0, axis=1)).view(np.uint64)[:, 0]


def _grey(pictures: Small) -> Float:
    return pictures.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _cropped(grey: Float, share: float) -> Float:
    """The middle of each picture, enlarged to the whole."""
    edges = np.linspace(share * SIDE, (1 - share) * SIDE, SIDE + 1)
    places = (edges[:-1] + edges[1:]) / 2 - 0.5
    low = np.clip(np.floor(places).astype(int), 0, SIDE - 2)
    part = (places - low).astype(np.float32)
    rows = grey[:, low] * (1 - part)[:, None] + grey[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def likeness(left: Small, right: Small) -> Float:
    """How alike pictures [n, 32, 32, 3] are pairwise once `left` is aligned to `right`: correlation, 1 is the same.

    0 where they overlap too little, where one place differs much (a moved arm is no copy), or where one is flat.
    """
    one, two = left.astype(np.float32), right.astype(np.float32)
    grey_one, grey_two = _normal(_grey(left)), _normal(_grey(right))
    warp = np.tile(np.array([1, 0, 1, 0], np.float32), (len(left), 1))  # scale and shift across, then down
    for _ in range(_STEPS):
        moved, slope_x, slope_y, inside = _sampled(grey_one, warp)
        columns = np.stack([slope_x * _PLACE, slope_x, slope_y * _PLACE[:, None], slope_y], -1) * inside[..., None]
        columns = columns.reshape(len(left), -1, 4)
        rest = ((grey_two - moved) * inside).reshape(len(left), -1, 1)
        square = columns.transpose(0, 2, 1) @ columns + 0.5 * np.eye(4, dtype=np.float32)
        warp = warp + np.clip(np.linalg.solve(square, columns.transpose(0, 2, 1) @ rest)[..., 0], -0.1, 0.1)
        warp[:, ::2] = np.clip(warp[:, ::2], 0.7, 1.4)
        warp[:, 1::2] = np.clip(warp[:, 1::2], -0.4, 0.4)
    inside = _sampled(grey_one, warp)[3]
    moved = np.stack([_sampled(one[..., channel], warp)[0] for channel in range(3)], -1)
    return _correlation(moved, two, inside)


_PLACE = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1).astype(np.float32)  # pixel centres from -1 to 1


def _normal(grey: Float) -> Float:
    centred = grey - grey.mean((1, 2), keepdims=True)
    return centred / np.maximum(centred.std((1, 2), keepdims=True), FLAT)


def _sampled(grey: Float, warp: Float) -> tuple[Float, Float, Float, Float]:
    """Pictures at the warped places, their slopes there (by -1 to 1 of place), and 1 where a place is inside."""
    count = np.arange(len(grey))[:, None, None]
    across = (warp[:, 0:1] * _PLACE + warp[:, 1:2] + 1) * SIDE / 2 - 0.5
    down = (warp[:, 2:3] * _PLACE + warp[:, 3:4] + 1) * SIDE / 2 - 0.5
    inside = ((across >= -0.5) & (across <= SIDE - 0.5))[:, None, :] & ((down >= -0.5) & (down <= SIDE - 0.5))[
        :, :, None
    ]
    x, y = np.clip(across, 0, SIDE - 1.001), np.clip(down, 0, SIDE - 1.001)
    left, top = x.astype(int), y.astype(int)
    dx, dy = (x - left)[:, None, :], (y - top)[:, :, None]
    left, top = left[:, None, :], top[:, :, None]
    a, b = grey[count, top, left], grey[count, top, left + 1]
    c, d = grey[count, top + 1, left], grey[count, top + 1, left + 1]
    value = (a * (1 - dx) + b * dx) * (1 - dy) + (c * (1 - dx) + d * dx) * dy
    slope_x = ((b - a) * (1 - dy) + (d - c) * dy) * SIDE / 2
    slope_y = ((c - a) * (1 - dx) + (d - b) * dx) * SIDE / 2
    return value, slope_x, slope_y, inside.astype(np.float32)


def _correlation(one: Float, two: Float, inside: Float) -> Float:
    """Correlation of all colours at once: one brightness and contrast may differ, a hue may not."""
    weight = np.broadcast_to(inside[..., None], one.shape)
    # What one picture shows as white the other may show as bright: its brightness was raised.
    clipped = (np.maximum(one, two) > WHITE) & (np.minimum(one, two) > BRIGHT)
    total = np.maximum(weight.sum((1, 2, 3), keepdims=True), 1)
    one = (one - (one * weight).sum((1, 2, 3), keepdims=True) / total) * weight
    two = (two - (two * weight).sum((1, 2, 3), keepdims=True) / total) * weight
    spread_one = np.sqrt((one * one).sum((1, 2, 3), keepdims=True) / total)
    spread_two = np.sqrt((two * two).sum((1, 2, 3), keepdims=True) / total)
    alike = (one * two).sum((1, 2, 3), keepdims=True) / total / np.maximum(spread_one * spread_two, 1e-6)
    rest = (two / np.maximum(spread_two, FLAT) - alike * one / np.maximum(spread_one, FLAT)) * ~clipped
    places = (rest * rest).mean(3).reshape(len(one), 8, 4, 8, 4).mean((2, 4))
    worst = np.sqrt(places.max((1, 2)))
    flat = np.minimum(spread_one, spread_two)[:, 0, 0, 0] < FLAT
    enough = inside.mean((1, 2)) >= LEAST_OVERLAP
    result: Float = np.where(enough & ~flat & (worst <= LEAST_CORNER), alike[:, 0, 0, 0], 0.0)
    return result
