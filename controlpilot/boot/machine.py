"""What the container was given: driver, GPUs, processor, memory, shared memory. One line each, with the remedy."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version

import psutil

from controlpilot.boot.report import Report
from controlpilot.limits import cpu_group, memory_group
from trainpilot.runs.devices import gpus

GIB = 2**30
# The oldest driver of each CUDA that a variant of the image brings, by the image's torch.
NEEDS = {"2.13": (580, "CUDA 13"), "2.10": (570, "CUDA 12.8")}
OLDER = "the variant with CUDA 12.8 (tag core-cu128, or --build-arg TORCH=torch===2.10.0), for drivers from 570"
SHM_WANTED = 1 * GIB


def check(report: Report) -> None:
    """Look at everything; never raises."""
    _gpu(report)
    _processor(report)
    _shm(report)


def _gpu(report: Report) -> None:
    found, why = gpus()
    if not found:
        report.note("gpu", f"none ({why}); everything but training in earnest works. docker run needs --gpus all")
        return
    names = ", ".join(f"{gpu['name']} {gpu['memory_bytes'] / GIB:.0f} GiB" for gpu in found)
    report.ok("gpu", names)
    level, text = driver(str(found[0]["driver"]), _torch())
    report.add("problem" if level else "ok", "driver", text)


def driver(given: str, torch: str) -> tuple[bool, str]:
    """Whether a driver is too old for the image's torch, and the line that says so. given: as "570.124.06"; torch:
    as "2.13.0+cu130"."""
    if torch.endswith("+cpu"):
        return True, f"{given}, but this image's torch is built for the CPU: take the image with CUDA"
    needed, cuda = NEEDS.get(".".join(torch.split(".")[:2]), (0, "its CUDA"))
    major = given.split(".")[0]
    if not major.isdecimal():
        return True, f"{given!r} is no version; {cuda} needs {needed} or newer"
    if int(major) >= needed:
        return False, f"{given}, enough for {cuda} of torch {torch}"
    remedy = f"take {OLDER}" if 570 <= int(major) < 580 else "update the machine's driver, or rent another machine"
    return True, f"{given} is too old: torch {torch} brings {cuda}, which needs {needed} or newer; {remedy}"


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _processor(report: Report) -> None:
    cpu, memory = cpu_group(), memory_group()
    cores = cpu.cores() if cpu else None
    limit = memory.memory_limit() if memory else None
    have = psutil.virtual_memory().total
    report.ok("cpu", f"{cores:g} cores (the container's limit)" if cores else f"{os.cpu_count()} cores (no limit)")
    size = min(limit or have, have)
    text = f"{size / GIB:.1f} GiB ({'the container has this limit' if limit and limit < have else 'no limit'})"
    if size < 8 * GIB:
        report.problem("memory", f"{text}: SDXL and FLUX need 16 to 32 GiB to load; give the container more")
    else:
        report.ok("memory", text)


def _shm(report: Report) -> None:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError as error:
        report.problem("shm", f"/dev/shm: {error.strerror}; add --shm-size 1g")
        return
    if size < SHM_WANTED:
        text = f"{size / 2**20:.0f} MiB: enough for this trainer; other services may need --shm-size 1g"
        report.note("shm", text)
    else:
        report.ok("shm", f"{size / GIB:.1f} GiB")
