"""Adapters of several modules as one adapter of the matrix their rows make up, and back. Pure tensor functions.

Used for FLUX, where the original model has query, key, value (and the first MLP layer) in one matrix. The merged
adapter of W = [W1; W2; ...] stacks the down weights and puts the up weights on the diagonal of blocks:
[s1 B1 A1; s2 B2 A2; ...] = s [B1 0; 0 B2; ...] [A1; A2; ...].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.formats.state import DOWN, MAGNITUDE, UP, ModuleWeights

Record = list[tuple[int, float] | None] | Literal["shared"]
"""Rank and alpha of each part (None: not adapted), or "shared": all parts have the one down weight."""


def merge(parts: Sequence[ModuleWeights | None], rows: Sequence[int]) -> tuple[ModuleWeights, Record]:
    """One adapter for the whole matrix, and the record that makes `separate` exact.

    A part that is None is not adapted and gets rows of zeros. parts: LoRA (or, all of them, DoRA) of modules with the
    same input; rows: rows of each part. Where all down weights hold the same values, as after reading a file that had
    one for all, one is kept and the up rows are stacked. Parts with another scale than the first one's have the ratio
    put into their up weights.
    """
    present = [part for part in parts if part is not None]
    first = present[0]
    if len(present) == len(parts) and share_down(present):
        up = torch.cat([part.tensors[UP] for part in present])
        merged = {DOWN: first.tensors[DOWN], UP: up}
        return ModuleWeights("lora", merged | _magnitudes(present), first.rank, first.alpha), "shared"
    rank = sum(part.rank for part in present)
    up = first.tensors[UP].new_zeros(sum(rows), rank)
    record: list[tuple[int, float] | None] = []
    row = column = 0
    for part, height in zip(parts, rows, strict=True):
        if part is None:
            record.append(None)
        else:
            same = math.isclose(part.scale, first.scale, rel_tol=1e-9)
            block = part.tensors[UP] if same else part.tensors[UP] * (part.scale / first.scale)
            up[row : row + height, column : column + part.rank] = block
            record.append((part.rank, part.alpha if same else first.scale * part.rank))
            column += part.rank
        row += height
    merged = {DOWN: torch.cat([part.tensors[DOWN] for part in present]), UP: up}
    return ModuleWeights("lora", merged | _magnitudes(present), rank, first.alpha * rank / first.rank), record


def share_down(parts: Sequence[ModuleWeights]) -> bool:
    """Whether all parts have the same down weight and alpha: they came from one matrix, and can be one again."""
    first = parts[0]
    return all(
        part.alpha == first.alpha
        and part.tensors[DOWN].shape == first.tensors[DOWN].shape
        and torch.equal(part.tensors[DOWN], first.tensors[DOWN])
        for part in parts[1:]
    )


def _magnitudes(present: Sequence[ModuleWeights]) -> dict[str, Tensor]:
    # DoRA's norms are taken over rows, and rows do not mix in a merged matrix, so the magnitudes are just listed.
    if MAGNITUDE not in present[0].tensors:
        return {}
    return {MAGNITUDE: torch.cat([part.tensors[MAGNITUDE].reshape(-1) for part in present])}


def separate(
    whole: ModuleWeights, rows: Sequence[int], record: Record | None, where: str
) -> list[ModuleWeights | None]:
    """The adapters of the parts, the inverse of `merge`.

    record: what `merge` said, where the file has it; it makes the inverse exact. Without one, an up weight that is
    zero outside equal blocks is cut along them; any other gives every part the whole down weight with its rows of the
    up weight, which is the same function.
    """
    down, up = whole.tensors[DOWN], whole.tensors[UP]
    if up.shape[0] != sum(rows):
        raise PilotError(
            where, f"{up.shape[0]} rows", f"{sum(rows)} rows ({' + '.join(map(str, rows))})", "Take another file."
        )
    ups = up.split(list(rows))
    magnitudes = whole.tensors[MAGNITUDE].reshape(-1).split(list(rows)) if MAGNITUDE in whole.tensors else None
    blocks = _equal_blocks(whole, ups) if record is None else record
    if blocks == "shared":
        blocks = None
    _check(blocks, whole, len(ups), where)
    separated: list[ModuleWeights | None] = []
    column = 0
    for index, block in enumerate(ups):
        entry = blocks[index] if blocks is not None else (whole.rank, whole.alpha)
        if entry is None:
            separated.append(None)
            continue
        rank, alpha = entry
        columns = slice(column, column + rank) if blocks is not None else slice(None)
        column += rank
        tensors = {DOWN: down[columns].clone(), UP: block[:, columns].clone()}
        if magnitudes is not None:
            tensors[MAGNITUDE] = magnitudes[index].clone()
        separated.append(ModuleWeights("lora", tensors, rank, alpha))
    return separated


def _check(blocks: list[tuple[int, float] | None] | None, whole: ModuleWeights, count: int, where: str) -> None:
    # The record lies in the metadata, which anybody can edit: it has to fit the tensors.
    if blocks is None:
        return
    ranks = sum(entry[0] for entry in blocks if entry is not None)
    if len(blocks) != count or ranks != whole.rank:
        raise PilotError(
            where,
            f"a record of {len(blocks)} parts of rank {ranks} together",
            f"{count} parts of rank {whole.rank} together",
            "Remove trainpilot_parts from the file's metadata, or take another file.",
        )


def _equal_blocks(whole: ModuleWeights, ups: Sequence[Tensor]) -> list[tuple[int, float] | None] | None:
    """Rank and alpha of each part where `ups` are equal blocks on a diagonal, else None."""
    count = len(ups)
    if whole.rank % count:
        return None
    rank = whole.rank // count
    for index, block in enumerate(ups):
        outside = block.clone()
        outside[:, index * rank : (index + 1) * rank] = 0
        if bool(outside.any()):
            return None
    return [(rank, whole.alpha / count)] * count


def swap_halves(weights: ModuleWeights) -> ModuleWeights:
    """The adapter of a matrix whose upper and lower half of rows change places. Its own inverse."""

    def swapped(tensor: Tensor) -> Tensor:
        upper, lower = tensor.chunk(2)
        return torch.cat([lower, upper])

    tensors = {leaf: swapped(t) if leaf in (UP, MAGNITUDE) else t for leaf, t in weights.tensors.items()}
    return ModuleWeights(weights.type, tensors, weights.rank, weights.alpha)
