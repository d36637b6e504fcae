"""What a step measures, on its way from the device to the host. Used by the trainer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_BEHIND = 2  # steps under way while processes that train together read: the device never runs dry


@dataclass(frozen=True)
class Row:
    """Update number `step` (from 1): its loss and gradient norm, and the rates of the optimizer's groups."""

    step: int
    loss: float
    norm: float
    rates: list[float]


class Meter:
    """Brings measurements from the device to the host without making either wait.

    `push` starts a copy; `ready` returns those that have arrived, in order; `drain` waits for the rest. Several
    processes that train together must see a number at the same step: `ready` then returns all but the newest two.
    """

    def __init__(self, device: torch.device, *, together: bool = False) -> None:
        self._cuda, self._together = device.type == "cuda", together
        self._waiting: deque[tuple[int, list[float], Tensor, Any]] = deque()

    def push(self, step: int, measured: Tensor, rates: list[float]) -> None:
        """measured: [loss, gradient norm] on the device."""
        event = None
        if self._cuda:
            measured = measured.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._waiting.append((step, rates, measured, event))

    def ready(self) -> list[Row]:
        found = []
        while self._waiting and self._arrived():
            found.append(self._next())
        return found

    def drain(self) -> list[Row]:
        if self._cuda:
            torch.cuda.synchronize()
        return [self._next() for _ in range(len(self._waiting))]

    def forget(self) -> None:
        """Drop what is under way, after a rollback."""
        self._waiting.clear()

    def _next(self) -> Row:
        step, rates, measured, _ = self._waiting.popleft()
        loss, norm = measured.tolist()
        return Row(step, loss, norm, rates)

    def _arrived(self) -> bool:
        event = self._waiting[0][3]
        if not self._together:
            return event is None or event.query()
        if len(self._waiting) <= _BEHIND:
            return False
        if event is not None:
            event.synchronize()
        return True
