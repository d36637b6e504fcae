"""Read the header of a .safetensors file, and nothing else, and make sure the file can hold what it promises.

Layout (safetensors format): 8 bytes little-endian header length, the header (JSON: name -> dtype, shape,
data_offsets; "__metadata__" -> texts), then the data. Used by detection, the plan and file verification.
Every file may come from a stranger, so nothing in it is believed before it is checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from trainpilot.errors import PilotError

MAX_HEADER = 100_000_000  # bytes; the cap of the reference reader
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
_BITS |= {"U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32}
_BITS |= {"U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_FETCH = "Fetch the file again; a download or a copy may have stopped halfway."


@dataclass(frozen=True)
class Entry:
    """One tensor: dtype as the file names it, shape, and its bytes [start, end) after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """tensors by name, metadata, and data_start: bytes before the first tensor."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int

    @property
    def elements(self) -> int:
        """Numbers in the whole file."""
        return sum(entry.elements for entry in self.tensors.values())


def read_header(path: Path) -> Header:
    """The checked header of a file. Raises PilotError naming bytes expected and found where the file is cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8:
                raise _bad(path, f"{size} bytes", "at least 8 bytes", _FETCH)
            if length > MAX_HEADER:
                raise _bad(
                    path, f"a header of {length:,} bytes", f"at most {MAX_HEADER:,}", "It is no safetensors file."
                )
            text = file.read(length)
    except OSError as error:
        raise PilotError(
            path, error.strerror or str(error), "a readable file", "Check path and permissions."
        ) from error
    if len(text) < length:
        raise _bad(path, f"truncated: {size:,} bytes", f"at least {8 + length:,} bytes for the header", _FETCH)
    return parse_header(path, text, data_bytes=size - 8 - length)


def parse_header(path: Path, text: bytes, data_bytes: int) -> Header:
    """Check a header's JSON against the number of bytes that follow it. path is only for messages."""
    try:
        given = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"a header that is not JSON ({error})", "a JSON object", _FETCH) from error
    if not isinstance(given, dict):
        raise _bad(path, f"a header of type {type(given).__name__}", "a JSON object", _FETCH)
    metadata = given.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "metadata that is not text", "texts by name", _FETCH)
    tensors = {name: _entry(path, name, value) for name, value in given.items()}
    _check_places(path, tensors, data_bytes, 8 + len(text))
    return Header(tensors, metadata, 8 + len(text))


def _entry(path: Path, name: str, value: Any) -> Entry:
    place = f"tensor {name[:100]!r}"
    if not isinstance(value, dict):
        raise _bad(path, f"{place} is a {type(value).__name__}", "dtype, shape and data_offsets", _FETCH)
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _bad(
            path, f"{place} has dtype {str(dtype)[:40]!r}", ", ".join(_BITS), "Convert the file to a known dtype."
        )
    if not (isinstance(shape, list) and isinstance(offsets, list) and _whole(shape + offsets)) or len(offsets) != 2:
        raise _bad(path, f"{place} has shape {str(shape)[:60]} at {str(offsets)[:60]}", "whole numbers >= 0", _FETCH)
    entry = Entry(dtype, tuple(shape), offsets[0], offsets[1])
    needed = -(-entry.elements * _BITS[dtype] // 8)
    if entry.end - entry.start != needed:
        given = f"{place} spans {entry.end - entry.start:,} bytes"
        raise _bad(path, given, f"{needed:,} bytes for {dtype} {list(entry.shape)}", _FETCH)
    return entry


def _whole(values: list[Any]) -> bool:
    return all(type(v) is int and 0 <= v < 2**63 for v in values)


def _check_places(path: Path, tensors: dict[str, Entry], data_bytes: int, data_start: int) -> None:
    """Tensors must lie one after another, without gap or overlap, and end where the file ends."""
    reached = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            fault = "overlaps the one before" if entry.start < reached else "leaves a gap"
            raise _bad(path, f"tensor {name[:100]!r} at byte {entry.start:,} {fault}", f"byte {reached:,}", _FETCH)
        reached = entry.end
    if data_bytes < reached:
        total = f"{data_start + data_bytes:,} bytes, {reached - data_bytes:,} too few"
        raise _bad(path, f"truncated: {total}", f"{data_start + reached:,} bytes", _FETCH)
    if data_bytes > reached:
        given = f"{data_bytes - reached:,} bytes after the last tensor"
        raise _bad(path, given, f"a file of {data_start + reached:,} bytes", _FETCH)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _bad(path: Path, given: str, allowed: str, remedy: str) -> PilotError:
    return PilotError(path, given, allowed, remedy)
