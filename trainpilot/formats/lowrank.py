"""Products of two thin matrices: norms, distances and the best approximation of a lower rank. Pure tensor functions.

The change a LoRA makes is such a product, alpha/r B A. Nothing here forms it: with the QR decompositions B = Q1 R1 and
A' = Q2 R2, the singular values of B A are those of the small matrix R1 R2', and so is its Frobenius norm (Golub and Van
Loan, Matrix Computations, 5.2). All in double precision. Used by merging, resizing and extracting LoRA files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.formats.state import DOWN, UP, ModuleWeights

# Singular values below this share of the largest are rounding of the decomposition itself.
_NOTHING = 1e-12
_NOTHING_OF_GRAM = 1e-7  # of the roots of a Gram matrix's eigenvalues, which lose half of the digits


@dataclass(frozen=True)
class Product:
    """up [out, r] times down [r, in], float64; kernel: the sides of a convolution, () for a linear layer."""

    up: Tensor
    down: Tensor
    kernel: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def norm(self) -> float:
        """Frobenius norm of the product."""
        return float(_core(self.up, self.down).norm())


@dataclass(frozen=True)
class Limit:
    """How far to reduce: to at most `rank`, and no further than keeping `energy` of the squared norm asks for."""

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise PilotError("--rank", self.rank, "1 or more", "Choose a rank.")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise PilotError("--energy", self.energy, "more than 0, at most 1", "0.99 keeps 99% of the squared norm.")
        if self.rank is None and self.energy is None:
            raise PilotError("rank", "neither --rank nor --energy", "one of them, or both", "Say how far to reduce.")

    def count(self, values: Tensor, nothing: float = _NOTHING) -> int:
        """How many of the falling singular values to keep, at least one. nothing: share of the largest that is none."""
        kept = int((values > nothing * values[0]).sum())
        if self.energy is not None:
            shares = values.square().cumsum(0) / values.square().sum().clamp_min(torch.finfo(values.dtype).tiny)
            # The last share is 1 but for rounding, which must not ask for one value more than there is.
            kept = min(kept, int((shares < self.energy * (1 - 1e-15)).sum()) + 1)
        if self.rank is not None:
            kept = min(kept, self.rank)
        return max(1, kept)

    def text(self) -> str:
        said = [f"rank {self.rank}"] if self.rank is not None else []
        return " and ".join(said + ([f"energy {self.energy:g}"] if self.energy is not None else []))


def product(weights: ModuleWeights) -> Product:
    """The change that a LoRA module makes, with its scale in the up matrix."""
    down, up = weights.tensors[DOWN], weights.tensors[UP]
    return Product(up.flatten(1).double() * weights.scale, down.flatten(1).double(), tuple(down.shape[2:]))


def total(terms: list[tuple[Product, float]]) -> Product:
    """The weighted sum, exactly: ranks one after the other, [w1 B1, w2 B2, ...] times [A1; A2; ...]."""
    return Product(
        torch.cat([term.up * weight for term, weight in terms], 1),
        torch.cat([term.down for term, _ in terms]),
        terms[0][0].kernel,
    )


def distance(a: Product, b: Product) -> float:
    """Frobenius norm of a - b. Exact to rounding also where both are nearly the same."""
    return float(_core(torch.cat([a.up, -b.up], 1), torch.cat([a.down, b.down])).norm())


def _core(up: Tensor, down: Tensor) -> Tensor:
    """A small matrix with the singular values of up times down."""
    return _triangle(up) @ _triangle(down.T).T


def _triangle(tall: Tensor) -> Tensor:
    return tall if tall.shape[0] <= tall.shape[1] else torch.linalg.qr(tall, mode="r").R


def truncated(whole: Product, limit: Limit) -> Product:
    """The best approximation of a lower rank in the Frobenius norm (Eckart and Young 1936), by SVD.

    Both factors get the root of each singular value, so that neither leaves the range of a 16-bit format.
    """
    left, first = torch.linalg.qr(whole.up)
    right, second = torch.linalg.qr(whole.down.T)
    u, values, v = torch.linalg.svd(first @ second.T, full_matrices=False)
    kept = limit.count(values)
    roots = values[:kept].sqrt()
    return Product(left @ u[:, :kept] * roots, roots[:, None] * (v[:kept] @ right.T), whole.kernel)


def of_dense(change: Tensor, limit: Limit) -> Product:
    """The best approximation of a whole matrix [out, in(, k, k)] within `limit`.

    By the eigenvectors of the smaller Gram matrix in double precision, which is several times cheaper than an SVD of
    the whole; singular values below about 1e-8 of the largest are lost in it, far under what any format keeps.
    """
    flat = change.flatten(1).double()
    wide = flat.shape[0] <= flat.shape[1]
    squares, vectors = torch.linalg.eigh(flat @ flat.T if wide else flat.T @ flat)
    values = squares.flip(0).clamp_min(0).sqrt()
    kept = limit.count(values, _NOTHING_OF_GRAM)
    basis = vectors.flip(1)[:, :kept]
    # U (U' D) needs no division by a singular value, which may be nothing.
    up, down = (basis, basis.T @ flat) if wide else (flat @ basis, basis.T)
    roots = values[:kept].clamp_min(float(values[0]) * _NOTHING).sqrt()
    roots = roots.where(roots > 0, torch.ones_like(roots))
    up, down = (up * roots, down / roots[:, None]) if wide else (up / roots, roots[:, None] * down)
    return Product(up, down, tuple(change.shape[2:]))


def weights_of(given: Product, alpha: float) -> ModuleWeights:
    """A LoRA module with this alpha that makes the change `given`: its scale, alpha / rank, is taken out of both."""
    root = (given.rank / alpha) ** 0.5
    ones = [1] * len(given.kernel)
    kernel = given.kernel
    channels = given.down.shape[1] // int(torch.tensor(kernel).prod() if kernel else 1)
    down = (given.down * root).reshape(given.rank, channels, *kernel)
    return ModuleWeights(
        "lora", {DOWN: down, UP: (given.up * root).reshape(*given.up.shape, *ones)}, given.rank, float(alpha)
    )
