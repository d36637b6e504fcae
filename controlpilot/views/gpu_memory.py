"""Who else holds a GPU's memory, so that a person learns it before a run starts and fails. Empty without a GPU.

Used by the queue's view; the reading itself is trainpilot's, as the worker's.
"""

from __future__ import annotations

import threading
import time

from pydantic import BaseModel, Field

from trainpilot.runs.gpu_memory import MATTERS, memories

KEPT = 3.0  # seconds an answer is good for
_lock = threading.Lock()
_answer: tuple[float, list[Holder]] | None = None


class Holder(BaseModel):
    """A process that holds memory of a device. name: of its program, where this user may see it."""

    device: str = Field(description="UUID of the GPU")
    device_name: str
    pid: int
    name: str
    bytes: int | None = Field(description="Held by it; null where the driver does not tell")
    total: int = Field(description="Memory of the device")


def holders() -> list[Holder]:
    """All processes with a compute context on a GPU. Nothing on a machine without an NVIDIA driver."""
    global _answer
    with _lock:
        if _answer is None or time.monotonic() - _answer[0] > KEPT:
            _answer = time.monotonic(), _asked()
        return _answer[1]


def obstacles(device: str, found: list[Holder], own: set[int]) -> list[Holder]:
    """Those that hold enough of a device to be in the way of a run, but for `own` processes."""
    return [
        one
        for one in found
        if one.device == device and one.pid not in own and (one.bytes is None or one.bytes >= MATTERS)
    ]


def _asked() -> list[Holder]:
    return [
        Holder(device=uuid, device_name=memory.name, total=memory.total, **vars(holder))
        for uuid, memory in memories().items()
        for holder in memory.holders
    ]
