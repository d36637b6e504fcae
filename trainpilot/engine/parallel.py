"""Several processes that train one run: who we are, the sum of everybody's gradients, and what all agree on.

Started by `accelerate launch --multi_gpu --num_processes N -m trainpilot run FOLDER`, or by torchrun.

Gradients are summed in one flat buffer instead of wrapping models in DDP: names of modules stay as they are, adapters
of several models are one reduction, and a process that has no batch in a step simply adds nothing.

A wish (a stop, a save) reaches one process first, and one that acted on it alone would leave the others waiting for
its gradients for ever. So all meet before each step, and wherever they wait for the writer; one that leaves in between
comes to one last meeting. Meetings are held by the hosts: no device waits for them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainpilot.errors import ExitCode
from trainpilot.runs.stop import StopFlag, StopRequested

_KINDS = (None, ExitCode.PREEMPTED, ExitCode.STOPPED)  # a person's wish wins over a pre-emption
# The others wait while the writer samples and verifies. One that dies is noticed at once, by its closed connection.
_PATIENCE = datetime.timedelta(days=1)
_PLACES = 4  # numbers that are exchanged: the stop and up to three wishes


def launched_alone(environment: Mapping[str, str]) -> str | None:
    """What to tell where several processes were asked for and one was started, else None.

    `accelerate launch --cpu` starts one whatever --num_processes says; a meeting place without a count gives it away.
    """
    if "WORLD_SIZE" in environment or "MASTER_ADDR" not in environment or "ACCELERATE_USE_CPU" not in environment:
        return None
    return (
        "one process trains: accelerate launch starts several only with --multi_gpu; on CPUs use "
        "`torchrun --nproc-per-node N -m trainpilot run FOLDER`"
    )


@dataclass
class World:
    """This process among `size` processes; `rank` 0 is the only one that writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    _hosts: Any = field(default=None, repr=False)  # the group in which the hosts meet
    _told: bool = False  # all know that the run stops

    @classmethod
    def join(cls) -> World:
        """Meet the others, if there are any."""
        from accelerate import PartialState
        from accelerate.utils import get_int_from_env

        if get_int_from_env(["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"], 1) == 1:
            return cls()
        state = PartialState(cpu=not torch.cuda.is_available())
        hosts = dist.new_group(backend="gloo", timeout=_PATIENCE)
        return cls(state.process_index, state.num_processes, state.local_process_index, hosts)

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

    def agree(self, stop: StopFlag, *wishes: bool) -> tuple[bool, ...]:
        """Return when everybody has come here: which of the wishes anybody has.

        Raises StopRequested, in all alike, where anybody was asked to stop.
        """
        if self.size == 1:
            stop.check()
            return wishes
        mine = stop.asked.kind if stop.poll() and stop.asked is not None else None
        return self._meet(mine, stop.asked, wishes)

    def wait(self) -> None:
        """Return when everybody has come here. Raises StopRequested where one of them has left because of a stop."""
        if self.size > 1:
            self._meet(None, None, ())

    def tell(self, asked: StopRequested) -> None:
        """Leave because of a stop that came between two meetings; the others learn of it where they meet next."""
        if self.size > 1 and not self._told:
            self._told = True
            self._all([_KINDS.index(asked.kind)])

    def leave(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _meet(self, mine: ExitCode | None, asked: StopRequested | None, wishes: Sequence[bool]) -> tuple[bool, ...]:
        number, *others = self._all([_KINDS.index(mine), *wishes])
        kind = _KINDS[number]
        if kind is None:
            return tuple(bool(one) for one in others)
        self._told = True
        if asked is not None and asked.kind == kind:
            raise StopRequested(kind, asked.reason)
        raise StopRequested(kind, "another process of the run was asked to stop")

    def _all(self, numbers: Sequence[int]) -> list[int]:
        """The largest of everybody's numbers, one by one. Those who sent fewer have none of the rest."""
        sent = torch.zeros(_PLACES, dtype=torch.int32)
        sent[: len(numbers)] = torch.tensor(numbers, dtype=torch.int32)
        dist.all_reduce(sent, dist.ReduceOp.MAX, group=self._hosts)
        found: list[int] = sent.tolist()
        return found[: len(numbers)]
