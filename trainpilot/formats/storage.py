"""Writing and reading one .safetensors file of adapter weights: deterministic bytes, nothing half-written, no NaN.

Used by the Kohya and the PEFT writer. The library's own writer leaves the order of the metadata to chance; here the
same input gives the same file, bit for bit.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainpilot.errors import PilotError, RunFailed
from trainpilot.formats.header import compose, hashes

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor` on the CPU in `dtype`. Raises RunFailed for NaN or infinity, also where only the cast makes it so."""
    moved = tensor.detach().to("cpu")
    result = moved.to(dtype).contiguous()
    if not bool(torch.isfinite(result).all()):
        here = "the cast overflows" if bool(torch.isfinite(moved).all()) else "the weights hold NaN or infinity"
        largest = moved.abs().nan_to_num(nan=float("inf")).max()
        raise RunFailed(
            name,
            f"{here} (largest magnitude {float(largest):.3g}, saved as {_NAMES.get(dtype, dtype)})",
            "finite weights",
            "Nothing was saved. Lower the learning rate, or set precision.save=bf16 or fp32 where the cast overflows.",
        )
    return result


def scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A zero-dimensional tensor in `dtype`, or in fp32 where `dtype` cannot hold the value exactly."""
    made = torch.tensor(value, dtype=dtype)
    return made if float(made) == value else torch.tensor(value, dtype=torch.float32)


def _pack(tensors: Mapping[str, Tensor]) -> tuple[dict[str, object], bytes]:
    """Entries of the header and the data. Tensors lie by falling element size, then by name: aligned, and always so."""
    entries: dict[str, object] = {}
    chunks: list[bytes] = []
    at = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name]
        chunk = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(chunk)],
        }
        at += len(chunk)
        chunks.append(chunk)
    return entries, b"".join(chunks)


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Header and data of the file, with both hashes added to the metadata. tensors lie on the CPU."""
    entries, data = _pack(tensors)
    return compose(entries, {**metadata, **hashes(entries, metadata, [data])}), data


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write beside `path`, sync, rename. Raises RunFailed on a full disk; what was at `path` stays until then."""
    header, data = serialize(tensors, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(header)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(path.parent).free
            raise RunFailed(
                path,
                f"the disk is full ({free / 1e6:.0f} MB free)",
                f"{(len(header) + len(data)) / 1e6:.1f} MB",
                "Free some space and try again.",
            ) from error
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise PilotError(path, str(error), "a complete .safetensors file", "Fetch or export the file again.") from error
