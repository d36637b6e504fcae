"""Compiling the denoiser's repeated blocks, and what those blocks are. Used by the trainer and by `quantize`.

Blocks are compiled one by one rather than the whole model: they share their code, so a model of 57 blocks costs the
compile time of two. Done after quantising, adapter and cast; a compiled block does not see later changes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from trainpilot.engine.probe import unverified

# Blocks of different widths times buckets of different sizes each need their own code; torch's default of 8 is
# reached by Stable Diffusion's three widths and three buckets, and the rest would run uncompiled.
_RECOMPILE_LIMIT = 128


def repeated_blocks(denoiser: nn.Module) -> list[tuple[str, nn.Module]]:
    """The denoiser's repeated blocks as (name, module).

    By diffusers' `_repeated_blocks` where the class names them, else by `_no_split_modules`, else the members of the
    model's own module lists.
    """
    classes = getattr(denoiser, "_repeated_blocks", None) or getattr(denoiser, "_no_split_modules", None) or ()
    named = [(name, module) for name, module in denoiser.named_modules() if type(module).__name__ in classes]
    if named:
        return named
    return [
        (f"{name}.{place}", block)
        for name, child in denoiser.named_children()
        if isinstance(child, nn.ModuleList)
        for place, block in child.named_children()
    ]


@dataclass(frozen=True)
class Compiled:
    """Whether the blocks run compiled, and the sentence to print."""

    on: bool
    reason: str


def compile_blocks(denoiser: nn.Module, trial: Callable[[], object]) -> Compiled:
    """Compile the repeated blocks in place, or leave the model as it was and say why.

    trial runs one forward and backward pass of the real shapes: compiling happens at the first call, and a compiler
    that fails has to fail here, at set-up, not in the middle of training. Out of memory is not a compiler's failure
    and is raised.
    """
    blocks = repeated_blocks(denoiser)
    if not blocks:
        return Compiled(False, "compile: off, the model has no repeated blocks")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
    for _, block in blocks:
        block.compile(fullgraph=True)
    try:
        trial()
    except torch.OutOfMemoryError:
        _back_to_eager(blocks)
        raise
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        # torch's own compile errors are RuntimeErrors; a missing C compiler is one of the other two.
        _back_to_eager(blocks)
        first_line = str(error).strip().partition("\n")[0][:300]
        return Compiled(False, f"compile: off, the compiler failed ({type(error).__name__}: {first_line})")
    device = next(denoiser.parameters()).device
    return Compiled(True, f"compile: on, as memory.compile says; {len(blocks)} repeated blocks{unverified(device)}")


def _back_to_eager(blocks: list[tuple[str, nn.Module]]) -> None:
    for _, block in blocks:
        block._compiled_call_impl = None
    torch._dynamo.reset()
