"""What gives way when the device runs out of memory while training, so that the run goes on with the same numbers.

First recomputing activations (gradient checkpointing), then splitting batches in two, and again. Gradients of the
pieces add up to those of the batch, so the effective batch and the course of the run stay as configured. What would
change the numbers (quantising, a smaller picture) is left to the person, and named. Used by `step.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from trainpilot.errors import RunFailed


class Ladder:
    """The rungs of one run. models: those that are trained; say: told of every rung; checkpointing: already on."""

    def __init__(self, models: Mapping[str, nn.Module], say: Callable[[str], None], *, checkpointing: bool) -> None:
        self.pieces = 1  # parts that a batch is computed in
        self._models, self._say, self._checkpointing = dict(models), say, checkpointing

    def climb(self, largest: int) -> None:
        """Take the next rung; largest: images in the largest batch of the step. Raises RunFailed at the top."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._checkpointing:
            self._checkpointing = True
            for component, model in self._models.items():
                checkpoint_activations(component, model)
            self._say("out of memory: activations are recomputed from here on (memory.gradient_checkpointing)")
        elif self.pieces < largest:
            self.pieces = min(self.pieces * 2, largest)
            self._say(f"out of memory: batches are computed in {self.pieces} pieces from here on, with the same result")
        else:
            raise RunFailed(
                "memory",
                "out of memory with one image at a time and recomputed activations",
                "more free memory on the device, or a smaller model",
                "Set precision.base=nf4, lower buckets.resolution or network.rank, or free the device; then resume.",
            )


def checkpoint_activations(component: str, model: nn.Module) -> None:
    """Turn on gradient checkpointing; diffusers' and transformers' models name it differently."""
    if component == "denoiser":
        model.enable_gradient_checkpointing()  # type: ignore[operator]
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
