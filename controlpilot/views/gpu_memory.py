"""Who else holds a GPU's memory, so that a person learns it before a run starts and fails. Empty without a GPU.

Used by the queue's view.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
from pydantic import BaseModel, Field

MATTERS = 500_000_000  # bytes below which a process is no obstacle: a desktop, an idle context
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
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    found: list[Holder] = []
    try:
        for number in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
            total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found += [
                Holder(device=uuid, device_name=name, pid=one.pid, name=_name(one.pid), bytes=_bytes(one), total=total)
                for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            ]
    except nvml.NVMLError:
        return found  # a driver that tells only a part; what it told is true
    finally:
        nvml.nvmlShutdown()
    return found


def _bytes(process: Any) -> int | None:
    return int(process.usedGpuMemory) if process.usedGpuMemory else None


def _name(pid: int) -> str:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return f"process {pid}"
    for known in ("ComfyUI", "invokeai", "kohya", "ai-toolkit", "jupyter", "trainpilot"):
        if any(known.lower() in word.lower() for word in words[:6]):
            return known
    return words[0].rsplit("/", 1)[-1] if words else f"process {pid}"
