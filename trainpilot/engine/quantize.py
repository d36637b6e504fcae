"""Smaller storage of the frozen denoiser: int8, nf4 or fp8 weights under ordinary linear layers.

Used by the trainer before the adapter is put in; the order is: load, `quantize`, move, adapter, compile. One layer
class serves all three, on every device: it is an `nn.Linear` whose `weight` is made from the stored codes when it is
read, so that adapters of any kind (also DoRA, LoHa, LoKr, which look at the weight) work over it and stay in fp32.
Arithmetic is in the dtype of the input (or of autocast); only the storage is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainpilot.engine.compiling import repeated_blocks
from trainpilot.engine.probe import unverified
from trainpilot.errors import PilotError

_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max
_NF4_BLOCK = 64  # weights that share one scale, bitsandbytes' own default

Shape = tuple[int, int]


def _as_bits(scale: Tensor) -> Tensor:
    # Scales travel as integers: `module.to(bfloat16)` casts every floating buffer and would blunt them.
    return scale.float().contiguous().view(torch.int32)


# bitsandbytes is imported where it is used: it takes a second and says things about kernels nobody asked for.
def _pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    import bitsandbytes.functional as bnb

    codes, absmax, _ = bnb.int8_vectorwise_quant(weight.half().contiguous())
    return codes, _as_bits(absmax.float() / 127)


def _unpack_rows(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    # 8-bit codes are exact in every float format; the product is rounded once, without a full-size fp32 copy.
    return codes.to(dtype).mul_(scale.view(torch.float32).view(-1, 1))


def _unpack_int8(codes: Tensor, scale: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    return _unpack_rows(codes, scale, dtype)


def _pack_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    # A scale per row: an unscaled cast would push typical weights (0.02) down to where e4m3 has steps of 0.002.
    rows = weight.float()
    scale = (rows.abs().amax(dim=1) / _FP8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (rows / scale.view(-1, 1)).to(_FP8).view(torch.uint8), _as_bits(scale)


def _unpack_fp8(codes: Tensor, scale: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    return _unpack_rows(codes.view(_FP8), scale, dtype)


# Weights are laid out as whole blocks of 64, because bitsandbytes' CPU kernel assumes that no block crosses the end of
# a row and reads wrong scales where in_features is not a multiple of 64.
def _pack_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    import bitsandbytes.functional as bnb

    flat = weight.reshape(-1)
    blocks = F.pad(flat, (0, -flat.numel() % _NF4_BLOCK)).view(-1, _NF4_BLOCK)
    codes, state = bnb.quantize_4bit(blocks, blocksize=_NF4_BLOCK, quant_type="nf4", compress_statistics=False)
    return codes, _as_bits(state.absmax)


def _unpack_nf4(codes: Tensor, scale: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    blocks = (scale.numel(), _NF4_BLOCK)
    flat = torch.ops.bitsandbytes.dequantize_4bit(
        codes, scale.view(torch.float32), _NF4_BLOCK, "nf4", blocks, dtype
    ).view(-1)
    return flat[: shape[0] * shape[1]].view(shape)


_PACK: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "int8": _pack_int8,
    "nf4": _pack_nf4,
    "fp8": _pack_fp8,
}
_UNPACK: dict[str, Callable[[Tensor, Tensor, Shape, torch.dtype], Tensor]] = {
    "int8": _unpack_int8,
    "nf4": _unpack_nf4,
    "fp8": _unpack_fp8,
}


class _LinearFromCodes(torch.autograd.Function):
    """x W' + b that keeps the codes for the backward pass, not the full-size weight made from them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, codes: Tensor, scale: Tensor, storage: str, shape: Shape
    ) -> Tensor:
        ctx.save_for_backward(codes, scale)
        ctx.storage, ctx.shape = storage, shape
        return F.linear(x, _UNPACK[storage](codes, scale, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        codes, scale = ctx.saved_tensors
        back = gradient @ _UNPACK[ctx.storage](codes, scale, ctx.shape, gradient.dtype)
        return back, None, None, None, None, None


class StoredLinear(nn.Linear):
    """A frozen linear layer whose weight [out, in] is stored as codes.

    storage: "int8" (a scale per row), "nf4" (a scale per 64 weights), "fp8" (e4m3 with a scale per row).
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, storage: str, device: torch.device | str) -> None:
        nn.Module.__init__(self)  # not nn.Linear's: it would allocate the weight that is to go
        self.in_features, self.out_features, self.storage = linear.in_features, linear.out_features, storage
        self.plain_dtype = linear.weight.dtype
        codes, scale = _PACK[storage](linear.weight.detach().to(device))
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight [out, in] as the codes stand for it, in the dtype it had; a new tensor at each reading."""
        shape = (self.out_features, self.in_features)
        return _UNPACK[self.storage](self.codes, self.scale, shape, self.plain_dtype)

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_autocast_enabled(input.device.type):
            input = input.to(torch.get_autocast_dtype(input.device.type))
        bias = None if self.bias is None else self.bias.to(input.dtype)
        shape = (self.out_features, self.in_features)
        result: Tensor = _LinearFromCodes.apply(input, bias, self.codes, self.scale, self.storage, shape)
        return result


@dataclass(frozen=True)
class Quantized:
    """What `quantize` did: layers replaced, their bytes before and after, and the sentence to print."""

    layers: int
    bytes_before: int
    bytes_after: int
    reason: str


def quantize(denoiser: nn.Module, storage: str, device: torch.device | str) -> Quantized:
    """Replace the linear layers of the repeated blocks by stored ones, in place, each on `device`.

    Embeddings, normalisations, convolutions, the first and the last layer keep their format: they are few and the
    picture hangs on them. The modulation projections inside blocks are linear layers too (27% of FLUX) and are stored.
    The weights must be real (not meta) and no adapter may be in place yet.
    """
    if storage == "full":
        return Quantized(0, 0, 0, "base weights: full, as precision.base says")
    if storage not in _PACK:
        raise PilotError("precision.base", storage, ", ".join(["full", *_PACK]), "Choose one of these.")
    found = [
        (parent, name, child)
        for _, block in repeated_blocks(denoiser)
        for parent in block.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    if not found:
        raise PilotError(
            "precision.base", storage, "full for this model: it has no block with linear layers", "Use full."
        )
    layers, before, after = len(found), 0, 0
    while found:  # popped, so that each full weight is freed as soon as its codes are made
        parent, name, linear = found.pop()
        stored = StoredLinear(linear, storage, device)
        setattr(parent, name, stored)
        before += linear.weight.nbytes
        after += stored.codes.nbytes + stored.scale.nbytes
    mib = 2**20
    return Quantized(
        layers,
        before,
        after,
        f"base weights: {storage}, as precision.base says; {layers} linear layers of the blocks went from "
        f"{before / mib:.1f} to {after / mib:.1f} MiB{unverified(torch.device(device))}",
    )
