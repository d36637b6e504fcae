"""Memory of a GPU as its driver tells it: what is free, and who holds the rest. Without torch.

Used by the worker, which lets a run wait while others hold what its plan says it needs, and by the panel's queue.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from trainpilot.runs import events

MATTERS = 500_000_000  # bytes below which a process is no obstacle: a desktop, an idle context
# Programs that people know by another name than their command's first word.
KNOWN = ("ComfyUI", "InvokeAI", "Kohya", "ai-toolkit", "Jupyter", "trainpilot")


@dataclass(frozen=True)
class Holder:
    """A process with memory of a device. bytes: None where the driver does not tell."""

    pid: int
    name: str
    bytes: int | None


@dataclass(frozen=True)
class Memory:
    """One device's memory, in bytes."""

    uuid: str
    name: str
    total: int
    free: int
    holders: tuple[Holder, ...]

    def room(self, own: Collection[int] = ()) -> int:
        """What a run can have once our `own` processes have left."""
        return self.free + sum(one.bytes or 0 for one in self.holders if one.pid in own)

    def others(self, own: Collection[int] = ()) -> list[Holder]:
        """Those that hold enough to be in the way, the largest first."""
        found = [one for one in self.holders if one.pid not in own and (one.bytes is None or one.bytes >= MATTERS)]
        return sorted(found, key=lambda one: -(one.bytes or 0))


def memories() -> dict[str, Memory]:
    """The memory of every GPU, by UUID. Empty without an NVIDIA driver; what a driver refuses to tell is left out."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return {}
    found: dict[str, Memory] = {}
    try:
        for number in range(nvml.nvmlDeviceGetCount()):
            for handle in instances(nvml, nvml.nvmlDeviceGetHandleByIndex(number)):
                uuid, told = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetMemoryInfo(handle)
                name = nvml.nvmlDeviceGetName(handle)
                found[uuid] = Memory(uuid, name, int(told.total), int(told.free), _holders(nvml, handle))
    except nvml.NVMLError:
        return found  # a driver that tells only a part; what it told is true
    finally:
        nvml.nvmlShutdown()
    return found


def instances(nvml: Any, handle: Any) -> list[Any]:
    """The handles that can be computed on: the GPU itself, or its MIG instances."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return [handle]  # this model has no MIG
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return [handle]
    found = []
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except nvml.NVMLError:
            continue  # this place for an instance is empty
    return found


def needed(run: Path) -> int | None:
    """Bytes that the plan of a run folder estimates; None where it made no plan, or could not tell."""
    found, _ = events.read(run / "events.jsonl")
    vram = next((event.get("vram") for event in found if event["kind"] == "plan"), None)
    total = vram.get("total") if isinstance(vram, dict) else None
    return total if isinstance(total, int) and total > 0 else None


def shortage(need: int | None, memory: Memory | None, own: Collection[int] = ()) -> str:
    """Why a run that needs this much has to wait; "" where it has not: there is room, nothing is known, nobody else
    holds anything, or it would not fit into the whole device either (the engine then goes down its ladder)."""
    if need is None or memory is None or need <= memory.room(own) or need > memory.total:
        return ""
    if memory.total - memory.room(own) < MATTERS:
        return ""
    others = memory.others(own)
    held = ", ".join(f"{one.name} (pid {one.pid}) holds {_size(one.bytes)}" for one in others)
    # In a container the driver may hide other containers' processes.
    held = held or f"other programs hold {_size(memory.total - memory.room(own))}"
    return f"waiting for {_size(need)} of GPU memory: {held}"


def program_of(pid: int) -> str:
    """What a person calls a process; its number where this user may not see it."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return f"process {pid}"
    for known in KNOWN:
        if any(known.lower() in word.lower() for word in words[:6]):
            return known
    return words[0].rsplit("/", 1)[-1] if words else f"process {pid}"


def _holders(nvml: Any, handle: Any) -> tuple[Holder, ...]:
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return ()
    return tuple(
        Holder(one.pid, program_of(one.pid), int(one.usedGpuMemory) if one.usedGpuMemory else None) for one in running
    )


def _size(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / 1e9:.1f} GB"
