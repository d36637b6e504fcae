"""Which devices this process may use, by names that stay the same: a GPU's UUID, or "cpu". Without torch.

Used by the verbs that run something (which take the device's lock) and by the worker (which gives each run a device).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trainpilot.runs.gpu_memory import instances

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices(environment: Mapping[str, str] | None = None) -> tuple[list[str], str]:
    """The devices a run may be given, and in words why these. A machine without usable GPUs has one: the CPU."""
    chosen = (os.environ if environment is None else environment).get(VISIBLE)
    if chosen is not None and chosen.strip() in ("", "-1"):
        return [CPU], f"{VISIBLE} hides all GPUs"
    try:
        if version("torch").endswith("+cpu"):
            return [CPU], "this torch is built for the CPU"
    except PackageNotFoundError:
        return [CPU], "torch is not installed"
    found, why = gpus()
    if not found:
        return [CPU], why
    names = [gpu["uuid"] for gpu in found]
    if chosen is None:
        return names, f"{len(names)} GPU(s) found"
    picked = []
    for word in (part.strip() for part in chosen.split(",")):
        # As CUDA reads it: a number, or the beginning of a UUID; the first that does not exist ends the list.
        match = names[int(word)] if word.isdigit() and int(word) < len(names) else None
        match = match or next((name for name in names if word and name.startswith(word)), None)
        if match is None:
            break
        picked.append(match)
    return (picked, f"{VISIBLE}={chosen}") if picked else ([CPU], f"{VISIBLE}={chosen} names no GPU of this machine")


def gpus() -> tuple[list[dict[str, Any]], str]:
    """uuid, name, memory_bytes and driver of each GPU (of each instance, where one is partitioned), and why none."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [], f"no NVIDIA driver: {error}"
    try:
        driver = nvml.nvmlSystemGetDriverVersion()
        found = []
        for number in range(nvml.nvmlDeviceGetCount()):
            for handle in instances(nvml, nvml.nvmlDeviceGetHandleByIndex(number)):
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(
                    {
                        "uuid": nvml.nvmlDeviceGetUUID(handle),
                        "name": nvml.nvmlDeviceGetName(handle),
                        "memory_bytes": int(memory.total),
                        "driver": driver,
                    }
                )
        return found, "" if found else "the NVIDIA driver lists no GPU"
    except nvml.NVMLError as error:
        return [], f"the NVIDIA driver answers: {error}"
    finally:
        nvml.nvmlShutdown()
