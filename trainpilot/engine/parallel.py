"""Several processes that train one run under `accelerate launch`: who we are, and the sum of everybody's gradients.

Gradients are summed in one flat buffer instead of wrapping models in DDP: names of modules stay as they are, adapters
of several models are one reduction, and a process that has no batch in a step simply adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among `size` processes; `rank` 0 is the only one that writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls) -> World:
        """Meet the others, if there are any."""
        from accelerate import PartialState
        from accelerate.utils import get_int_from_env

        if get_int_from_env(["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"], 1) == 1:
            return cls()
        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes, state.local_process_index)

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter], extra: Tensor) -> Tensor:
        """Add up every process's gradients in place (a missing one counts as zero), and `extra`, which is returned."""
        if self.size == 1:
            return extra
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.reshape(-1).float() for g in grads] + [extra.reshape(-1).float()])
        dist.all_reduce(flat)
        offset = 0
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = flat[offset : offset + grad.numel()].view_as(grad).to(grad.dtype)
            offset += grad.numel()
        return flat[offset:].view_as(extra)

    def wait(self) -> None:
        """Return when everybody has come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
