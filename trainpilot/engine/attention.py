"""Which attention kernel the denoiser uses: tried with a real forward and backward pass before it is relied on.

Used by the trainer and the sampler. diffusers' `set_attention_backend` does nothing on UNets and changes a global
default for every other model, so kernels are chosen where all families meet: under torch's own
`scaled_dot_product_attention`, by a context that is held around the forward **and** the backward pass (checkpointed
blocks run their forward pass again inside the backward one).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainpilot.errors import PilotError, RunFailed

WANTED = ("auto", "native", "sdpa", "flash", "xformers")
_KERNELS: dict[str, list[SDPBackend]] = {"native": [SDPBackend.MATH], "flash": [SDPBackend.FLASH_ATTENTION]}
_HEADS, _QUERIES, _TEXT = 4, 256, 77  # a small latent of 16x16 over itself and over one CLIP chunk
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Chosen:
    """The kernel in use and why."""

    name: str
    reason: str

    def context(self) -> AbstractContextManager[Any]:
        """Hold this around forward and backward passes; a new one each time."""
        kernels = _KERNELS.get(self.name)
        return sdpa_kernel(kernels) if kernels else nullcontext()


def choose(denoiser: nn.Module, wanted: str, device: torch.device, dtype: torch.dtype) -> Chosen:
    """Decide on `memory.attention` = wanted for this model on this device, computing in `dtype`.

    "native" is plain matrix products, "sdpa" torch's choice among its kernels, "flash" that kernel alone. "auto" is
    sdpa: torch picks the fastest kernel that supports the shapes. A kernel that fails its trial gives way to sdpa, and
    that to native, and `reason` says so. xformers is switched on inside the model.
    """
    if wanted not in WANTED:
        raise PilotError("memory.attention", wanted, ", ".join(WANTED), "Choose one of these.")
    widths = head_widths(denoiser)
    first = "sdpa" if wanted == "auto" else wanted
    why = f"torch picks the fastest of its kernels on {device.type}" if wanted == "auto" else "memory.attention says so"
    for name in dict.fromkeys((first, "sdpa", "native")):
        failure = _try(name, widths, device, dtype)
        if failure is None and name == "xformers":
            failure = _switch_on_xformers(denoiser)
        if failure is None:
            return Chosen(name, f"attention: {name}, because {why}; tried at head widths {widths}")
        why = f"{name} failed its trial here ({failure})"
    raise RunFailed("memory.attention", why, "a device that computes attention", "Check the driver and torch.")


def head_widths(denoiser: nn.Module) -> list[int]:
    """The distinct head widths of the model's attention layers; 64 where no layer tells."""
    widths: set[int] = set()
    for module in denoiser.modules():
        inner, heads = getattr(module, "inner_dim", None), getattr(module, "heads", None)
        if isinstance(inner, int) and isinstance(heads, int):
            widths.add(inner // heads)
    return sorted(widths) or [64]


def _try(name: str, widths: list[int], device: torch.device, dtype: torch.dtype) -> str | None:
    """Compare output and gradients with the textbook formula at each width; a sentence on what failed, or None."""
    for width in widths:
        for keys in (_QUERIES, _TEXT):
            try:
                difference = _difference(name, width, keys, device, dtype)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ImportError, OSError, NotImplementedError, ValueError) as error:
                text = " ".join(str(error).split())
                return f"head width {width}, {keys} keys: {type(error).__name__}: {text[:200]}"
            if not difference <= _TOLERANCE[dtype]:
                return f"head width {width}, {keys} keys: differs from the formula by {difference:.2g}"
    return None


def _difference(name: str, width: int, keys: int, device: torch.device, dtype: torch.dtype) -> float:
    """Largest relative difference of output and three gradients from softmax(QK'/sqrt(d))V in fp32."""
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> Tensor:
        drawn = torch.randn(1, _HEADS, length, width, generator=generator)
        return drawn.to(device, dtype)

    inputs = [draw(_QUERIES), draw(keys), draw(keys)]
    weight = draw(_QUERIES)
    mine = [tensor.clone().requires_grad_() for tensor in inputs]
    plain = [tensor.float().requires_grad_() for tensor in inputs]
    result = _attend(name, *mine)
    scores = plain[0] @ plain[1].transpose(-1, -2) / math.sqrt(width)
    expected = scores.softmax(dim=-1) @ plain[2]
    got = [result, *torch.autograd.grad((result * weight).sum(), mine)]
    want = [expected, *torch.autograd.grad((expected * weight.float()).sum(), plain)]
    return max(float(((a.float() - b).abs().max() / b.abs().max()).detach()) for a, b in zip(got, want, strict=True))


def _attend(name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    if name == "xformers":
        from xformers.ops import memory_efficient_attention  # an optional extra: its absence is a failed trial

        swapped = [tensor.transpose(1, 2) for tensor in (query, key, value)]
        result: Tensor = memory_efficient_attention(*swapped)
        return result.transpose(1, 2)
    with Chosen(name, "").context():
        return F.scaled_dot_product_attention(query, key, value)


def _switch_on_xformers(denoiser: nn.Module) -> str | None:
    """Make the model's own layers call xformers; a sentence on what failed, or None."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    processors: list[Any] = [getattr(module, "processor", None) for module in denoiser.modules()]
    dispatching = [processor for processor in processors if hasattr(processor, "_attention_backend")]
    for processor in dispatching:
        processor._attention_backend = AttentionBackendName.XFORMERS
    if dispatching:
        return None
    switch: Any = getattr(denoiser, "enable_xformers_memory_efficient_attention", None)
    if switch is None:
        return f"{type(denoiser).__name__} has no switch for it"
    try:
        switch()
    except (RuntimeError, ImportError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None
