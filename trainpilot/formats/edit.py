"""Changing the metadata of a LoRA file: the weights stay byte for byte, both hashes in the header stay true. No torch.

Used by `trainpilot metadata` and by publishing. Written beside, synced, renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.formats.header import LEGACY_HASH, MODEL_HASH, compose, entries_of, hashes
from trainpilot.models.safetensors_header import Header, read_header
from trainpilot.runs.atomic import sync_folder

# What people call it -> its key. Any other name is a key as it is.
PLAIN = {
    "title": "modelspec.title",
    "author": "modelspec.author",
    "description": "modelspec.description",
    "license": "modelspec.license",
    "licence": "modelspec.license",
    "trigger": "modelspec.trigger_phrase",
    "tags": "modelspec.tags",
    "usage": "modelspec.usage_hint",
    "comment": "ss_training_comment",
}
# These say how the weights are to be read, or follow from them.
_OF_THE_WEIGHTS = (MODEL_HASH, LEGACY_HASH, "format", "lora_adapter_metadata", "trainpilot_parts")
_LONGEST = 1_000_000  # characters of one value; thumbnails are the longest
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Hashes:
    """The two hashes as the header has them (empty where it has none) and as they should be."""

    stored: dict[str, str]
    true: dict[str, str]

    @property
    def right(self) -> bool:
        return all(self.stored[name] == self.true[name] for name in self.stored if self.stored[name])


def key_of(name: str) -> str:
    """The key of a name that a person gave. PilotError for one that belongs to the weights."""
    key = PLAIN.get(name.lower(), name)
    if key in _OF_THE_WEIGHTS:
        given = f"{key}, which says how the weights are read or follows from them"
        allowed = f"{', '.join(PLAIN)}, or any other key"
        raise PilotError("metadata", given, allowed, "Leave it: it is kept true by itself.")
    if not key or not key.isprintable():
        raise PilotError("metadata", repr(name)[:80], f"{', '.join(PLAIN)}, or a key", "Correct the name.")
    return key


def hashes_of(path: Path, header: Header | None = None) -> Hashes:
    """Both hashes of a file; the whole file is read once."""
    header = header or read_header(path)
    stored = {name: header.metadata.get(name, "") for name in (MODEL_HASH, LEGACY_HASH)}
    return Hashes(stored, hashes(entries_of(header), header.metadata, _data(path, header)))


def edit(path: Path, changes: Mapping[str, str | None], out: Path | None = None) -> dict[str, tuple[str, str]]:
    """Set keys of `path` to texts, or remove them (None); returns key -> (before, after) of those that changed.

    A link is followed, and stays one. out: write there instead, leaving `path` alone. Raises PilotError for a key that
    belongs to the weights, a text that is too long, or an `out` that exists.
    """
    source = path.resolve()
    header = read_header(source)
    metadata = dict(header.metadata)
    changed: dict[str, tuple[str, str]] = {}
    for name, value in changes.items():
        key = key_of(name)
        if value is not None and (len(value) > _LONGEST or "\0" in value):
            raise PilotError(name, f"{len(value):,} characters", f"at most {_LONGEST:,}, no zero byte", "Shorten it.")
        before = metadata.get(key, "")
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
        if before != (value or "") or (value is None) != (key not in header.metadata):
            changed[key] = (before, value or "")
    if out is not None and out.exists():
        raise PilotError(out, "exists already", "a new file", "Name another one with --out, or move this one away.")
    if changed or out is not None:
        _write(source, header, metadata, out or source)
    return changed


def _write(source: Path, header: Header, metadata: dict[str, str], target: Path) -> None:
    entries = entries_of(header)
    metadata |= hashes(entries, metadata, _data(source, header))
    beside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(compose(entries, metadata))
            for block in _data(source, header):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        read_header(beside)
        beside.chmod(source.stat().st_mode & 0o777)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)


def _data(path: Path, header: Header) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(header.data_start)
        while block := file.read(_BLOCK):
            yield block
