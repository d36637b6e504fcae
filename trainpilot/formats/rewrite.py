"""A copy of a .safetensors file with some tensors changed: one tensor in memory at a time, nothing half-written.

Names, order, shapes and dtypes stay; tensors that are not changed are copied byte for byte, whatever their dtype is.
Used for merging into a base model, whose files are larger than memory may be.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from trainpilot.errors import PilotError, RunFailed
from trainpilot.formats.header import compose, entries_of
from trainpilot.models.safetensors_header import Entry, Header, read_header
from trainpilot.runs.atomic import sync_folder

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCK = 1 << 24  # bytes copied at a time


def read_tensor(path: Path, header: Header, name: str) -> Tensor:
    """One tensor of a file, and nothing else of it."""
    entry = header.tensors[name]
    if entry.dtype not in DTYPES:
        remedy = "Take a version of the model in fp32, fp16 or bf16."
        raise PilotError(path, f"{name} is stored as {entry.dtype}", ", ".join(DTYPES), remedy)
    with path.open("rb") as file:
        file.seek(header.data_start + entry.start)
        data = bytearray(file.read(entry.end - entry.start))
    return torch.frombuffer(data, dtype=DTYPES[entry.dtype]).reshape(entry.shape) if data else torch.empty(entry.shape)


def rewrite(
    source: Path,
    target: Path,
    changed: Collection[str],
    change: Callable[[str, Tensor], Tensor],
    metadata: Mapping[str, str],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write `source` to `target` with each tensor of `changed` replaced by change(name, tensor).

    The new tensor is saved in the old one's dtype. Written beside, synced, renamed. check is called before each tensor
    and may raise to stop. Raises RunFailed on a full disk.
    """
    header = read_header(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        with source.open("rb") as given, beside.open("wb") as out:
            out.write(compose(entries_of(header), metadata))
            for name, entry in sorted(header.tensors.items(), key=lambda item: item[1].start):
                check()
                if name in changed:
                    new = change(name, read_tensor(source, header, name)).to(DTYPES[entry.dtype]).contiguous()
                    out.write(new.reshape(-1).view(torch.uint8).numpy().data)
                else:
                    given.seek(header.data_start + entry.start)
                    _copy(given.read, out.write, entry)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free
            given_ = f"the disk is full ({free / 1e9:.1f} GB free)"
            raise RunFailed(target, given_, f"{source.stat().st_size / 1e9:.1f} GB", "Free some space.") from error
        raise
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], entry: Entry) -> None:
    left = entry.end - entry.start
    while left and (block := read(min(left, _BLOCK))):
        write(block)
        left -= len(block)
