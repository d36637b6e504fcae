"""Timing on a device that works on its own: warm-up, synchronised steps, contenders in turn, peak memory.

Used by train_step.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

Run = Callable[[int], object]  # makes step number n


@dataclass
class Timing:
    """Seconds of synchronised steps, seconds a step when nothing waits, and peak bytes."""

    seconds: list[float] = field(default_factory=list)
    free_running: float = 0.0
    allocated: int = 0
    reserved: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The 95th percentile by nearest rank."""
        ranked = sorted(self.seconds)
        return ranked[max(0, -(-95 * len(ranked) // 100) - 1)]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from an idle device to an idle device."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def in_turn(contenders: Mapping[str, Run], device: torch.device, *, warmup: int, steps: int) -> dict[str, Timing]:
    """Measure each contender for `steps` steps, in five rounds that alternate who goes first.

    A machine's clock drifts with its temperature and its neighbours; taken in turn, the drift meets all alike. Each
    turn begins with two steps that are not counted, because it starts from an empty allocator.
    """
    timings = {name: Timing() for name in contenders}
    counters = dict.fromkeys(contenders, 0)

    def advance(name: str, count: int) -> None:
        for _ in range(count):
            contenders[name](counters[name])
            counters[name] += 1

    for name in contenders:
        advance(name, warmup)
    rounds = min(5, steps)
    for number in range(rounds):
        order = list(contenders)[:: 1 if number % 2 == 0 else -1]
        share = steps // rounds + (1 if number < steps % rounds else 0)
        for name in order:
            timing = timings[name]
            _forget_peaks(device)
            advance(name, 2)
            timing.seconds += [seconds_of(partial(advance, name, 1), device) for _ in range(share)]
            timing.free_running += seconds_of(partial(advance, name, share), device) / steps
            if device.type == "cuda":
                timing.allocated = max(timing.allocated, torch.cuda.max_memory_allocated(device))
                timing.reserved = max(timing.reserved, torch.cuda.max_memory_reserved(device))
    return timings


def _forget_peaks(device: torch.device) -> None:
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of one large square matrix product: what this device can do now."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    best = min(seconds_of(lambda: a @ b, device) for _ in range(20))
    return 2 * side**3 / best
