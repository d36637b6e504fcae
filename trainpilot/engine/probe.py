"""Which device a run computes on, what it can do, and in which number format. Used at the start of every torch job.

Nothing here is guessed silently: each decision comes with a sentence in `Device.notes`, which the caller prints.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from trainpilot.errors import PilotError

_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# The oldest driver branch that runs a CUDA build of that major version (NVIDIA's minor-version compatibility table).
_OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
_AMPERE = (8, 0)  # the first generation with bf16 arithmetic
_VOLTA = (7, 0)  # the first with fast fp16 arithmetic


@dataclass(frozen=True)
class Device:
    """One device and how a run uses it.

    dtype: arithmetic of the forward pass; memory_bytes, host_bytes: totals; notes: sentences to print.
    """

    torch_device: torch.device
    name: str
    dtype: torch.dtype
    memory_bytes: int
    host_bytes: int
    notes: tuple[str, ...]

    @property
    def is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"


def unverified(device: torch.device) -> str:
    """What is added to the notice of an option whose results were so far compared on the CPU alone."""
    return "" if device.type == "cpu" else "; unverified on this device"


def driver_problem(cuda_build: str | None, driver: str | None) -> str | None:
    """One line on a driver too old for torch's CUDA build, with the remedy; None where they fit or one is absent.

    cuda_build: `torch.version.cuda`, such as "13.0"; driver: NVIDIA's version, such as "570.86.15".
    """
    if not cuda_build or not driver:
        return None
    needed = _OLDEST_DRIVER.get(int(cuda_build.split(".")[0]))
    if needed is None or int(driver.split(".")[0]) >= needed:
        return None
    return (
        f"NVIDIA driver {driver} is too old for torch's CUDA {cuda_build}, which needs {needed} or newer: "
        f"update the driver, or rent a machine whose driver is {needed} or newer"
    )


def driver_version() -> str | None:
    """The NVIDIA driver's version; None where there is no NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def host_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """RAM this process may use: the machine's, or the container's limit where that is less."""
    total = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = cgroup / name
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def pick_precision(
    wanted: str, *, cuda_capability: tuple[int, int] | None, native_bf16: bool
) -> tuple[torch.dtype, str]:
    """The arithmetic format for `precision.mixed`, and why.

    cuda_capability: the GPU's compute capability, None for the CPU; native_bf16: whether it computes in bf16 itself.
    """
    if wanted != "auto":
        note = f"precision: {wanted}, as precision.mixed says"
        if cuda_capability is None and wanted != "fp32":
            note += "; most CPUs emulate it, so it is slower than fp32 here"
        elif wanted == "bf16" and not native_bf16:
            note += "; this GPU emulates it, so it is slow"
        return _FORMATS[wanted], note
    if cuda_capability is None:
        return torch.float32, "precision: fp32, because most CPUs emulate 16-bit formats and runs are bit-exact in fp32"
    if native_bf16:
        return torch.bfloat16, "precision: bf16, because the GPU computes in it and it needs no loss scaling"
    shown = ".".join(map(str, cuda_capability))
    if cuda_capability >= _VOLTA:
        return torch.float16, f"precision: fp16, because a GPU of capability {shown} has no bf16 (that needs 8.0)"
    return torch.float32, f"precision: fp32, because a GPU of capability {shown} has no fast 16-bit format"


def choose_device(precision: str = "auto", environment: Mapping[str, str] | None = None) -> Device:
    """The device of `PILOT_DEVICE` ("cpu", "cuda", "cuda:1"), else the first GPU, else the CPU.

    Raises PilotError where the wanted device is not there.
    """
    given = (os.environ if environment is None else environment).get("PILOT_DEVICE", "").strip()
    driver = driver_version()
    problem = driver_problem(torch.version.cuda, driver)
    available = torch.cuda.is_available()
    device = _parse(given, available, problem)
    notes = [f"device: {device}, as PILOT_DEVICE says"] if given else []
    if device.type == "cuda":
        return _cuda(device, precision, driver, notes)
    if not given:
        notes.append(f"device: cpu, because {_why_no_gpu(driver, problem)}")
    dtype, reason = pick_precision(precision, cuda_capability=None, native_bf16=False)
    host = host_memory_bytes()
    name = platform.processor() or platform.machine()
    return Device(device, f"CPU ({name})", dtype, host, host, (*notes, reason))


def _parse(given: str, available: bool, problem: str | None) -> torch.device:
    if not given:
        return torch.device("cuda", 0) if available else torch.device("cpu")
    try:
        device = torch.device(given)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise PilotError("PILOT_DEVICE", given, "cpu, cuda or cuda:N", "Correct or unset the variable.")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if available else 0
    if (device.index or 0) >= count:
        allowed = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise PilotError("PILOT_DEVICE", given, allowed, problem or "Unset the variable, or start where that GPU is.")
    return torch.device("cuda", device.index or 0)


def _why_no_gpu(driver: str | None, problem: str | None) -> str:
    if problem:
        return problem
    if driver is None:
        return "no NVIDIA driver was found"
    if torch.version.cuda is None:
        return f"torch was installed without CUDA although driver {driver} is there: run scripts/setup.sh again"
    return f"torch's CUDA {torch.version.cuda} found no usable GPU under driver {driver}: check nvidia-smi"


def _cuda(device: torch.device, precision: str, driver: str | None, notes: list[str]) -> Device:
    capability = torch.cuda.get_device_capability(device)
    properties = torch.cuda.get_device_properties(device)
    native = capability >= _AMPERE
    dtype, reason = pick_precision(precision, cuda_capability=capability, native_bf16=native)
    if not notes:
        notes = [f"device: {device}, the first GPU"]
    about = (
        f"{properties.name}: capability {capability[0]}.{capability[1]}, {properties.total_memory / 2**30:.1f} GiB, "
        f"driver {driver or 'unknown'}, CUDA {torch.version.cuda}"
    )
    return Device(device, properties.name, dtype, properties.total_memory, host_memory_bytes(), (*notes, about, reason))
