"""Writing the header of a .safetensors file, and the two hashes it carries: deterministic bytes, without torch.

Used by the writers (`storage`, `rewrite`) and the metadata editor. Reading is `models.safetensors_header`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from trainpilot.formats.hashes import LEGACY_END, legacy_hash_of
from trainpilot.models.safetensors_header import Header

MODEL_HASH = "sshs_model_hash"
LEGACY_HASH = "sshs_legacy_hash"


def compose(entries: Mapping[str, object], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON of the header, padded so that the data begins at a multiple of 8 bytes.

    entries: tensor name -> dtype, shape, data_offsets, kept in their order; the metadata is sorted.
    """
    document = {"__metadata__": dict(sorted(metadata.items())), **entries}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def entries_of(header: Header) -> dict[str, object]:
    """The entries of a header that was read, as `compose` takes them."""
    return {
        name: {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.end]}
        for name, entry in header.tensors.items()
    }


def hashes(entries: Mapping[str, object], metadata: Mapping[str, str], data: Iterable[bytes]) -> dict[str, str]:
    """sshs_model_hash and sshs_legacy_hash of a file with these entries, metadata and blocks of data.

    The first is the SHA-256 of everything after the header; the second that of 64 KiB at 1 MiB of the file as it would
    be with the ss_ metadata alone, first 8 hex digits.
    """
    plain = compose(entries, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    digest = hashlib.sha256()
    start = bytearray(plain)
    for block in data:
        digest.update(block)
        if len(start) < LEGACY_END:
            start += block[: LEGACY_END - len(start)]
    return {MODEL_HASH: digest.hexdigest(), LEGACY_HASH: legacy_hash_of(bytes(start))}
