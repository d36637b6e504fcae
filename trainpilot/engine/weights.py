"""Which weights a sample, a checkpoint's LoRA file and the result are made of, and the running average of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainpilot.engine.adapters import Adapter


class Average:
    """Exponential moving average of the adapter's weights, with diffusers' warm-up: min(decay, (1 + n) / (10 + n)).

    The warm-up keeps the random start from dominating short runs.
    """

    def __init__(self, adapter: Adapter, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.clone() for name, tensor in adapter.tensors().items()}
        self._mine = list(self.tensors.values())
        self._theirs = [parameter.data for parameter in adapter.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after update number `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


@contextmanager
def evaluation_weights(adapter: Adapter, optimizer: Optimizer, average: Average | None) -> Iterator[None]:
    """Inside, the adapter holds the weights to judge: the average, or what Schedule-Free evaluates, or its own.

    The training weights are copied before and written back after, bit for bit, whatever happens inside: turning
    Schedule-Free to evaluation and back by its own methods would round them.
    """
    switches: Any = getattr(optimizer, "eval", None)
    if average is None and switches is None:
        yield
        return
    before = {name: tensor.clone() for name, tensor in adapter.tensors().items()}
    modes = [group.get("train_mode") for group in optimizer.param_groups]
    try:
        if average is not None:
            adapter.load(average.tensors)
        else:
            switches()
        yield
    finally:
        adapter.load(before)
        for group, mode in zip(optimizer.param_groups, modes, strict=True):
            if mode is not None:
                group["train_mode"] = mode
