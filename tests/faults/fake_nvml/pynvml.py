"""In the place of NVIDIA's bindings on a machine without a GPU: every answer comes from the file FAKE_NVML, read anew
at each call. {"GPU-a": {"total": 24e9, "used": {"PID": bytes or null}}}; what nobody holds is free.
"""

import json
import os
import types
from pathlib import Path

NVML_DEVICE_MIG_ENABLE = 1


class NVMLError(Exception):
    """As theirs."""


def _told():
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text())


def nvmlInit():
    if not _told():
        raise NVMLError("no driver")


def nvmlShutdown():
    """Nothing is held."""


def nvmlDeviceGetCount():
    return len(_told())


def nvmlDeviceGetHandleByIndex(number):
    return list(_told())[number]


def nvmlDeviceGetMigMode(handle):
    raise NVMLError("this model has none")


def nvmlDeviceGetUUID(handle):
    return handle


def nvmlDeviceGetName(handle):
    return "NVIDIA L4"


def nvmlDeviceGetMemoryInfo(handle):
    about = _told()[handle]
    free = about["total"] - sum(size or 0 for size in about["used"].values()) - about.get("hidden", 0)
    return types.SimpleNamespace(total=about["total"], free=free, used=about["total"] - free)


def nvmlDeviceGetComputeRunningProcesses(handle):
    used = _told()[handle]["used"]
    return [types.SimpleNamespace(pid=int(pid), usedGpuMemory=size) for pid, size in used.items()]
