"""Hashes by which other tools recognise models and LoRA files. Used by the metadata and the writers; no torch.

Formulas as in sd-scripts, AUTOMATIC1111's web UI and its additional-networks extension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from trainpilot.errors import PilotError

_LEGACY_OFFSET = 0x100000
_LEGACY_BYTES = 0x10000
LEGACY_END = _LEGACY_OFFSET + _LEGACY_BYTES  # no later byte of a file matters to the legacy hash
_BLOCK = 1 << 20
# The denoiser's folder in a diffusers model, and the weight file in it.
_DENOISERS = ("unet", "transformer")


def sha256(path: Path) -> str:
    """SHA-256 of a whole file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def legacy_hash(path: Path) -> str:
    """First 8 hex digits of the SHA-256 of 64 KiB at offset 1 MiB; a shorter file gives the hash of what is there."""
    with path.open("rb") as file:
        file.seek(_LEGACY_OFFSET)
        return hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:8]


def legacy_hash_of(buffer: bytes) -> str:
    """`legacy_hash` of a file's bytes."""
    return hashlib.sha256(buffer[_LEGACY_OFFSET:LEGACY_END]).hexdigest()[:8]


def weight_file(model: Path, parts: tuple[str, ...] = _DENOISERS) -> Path:
    """The file that stands for a model: itself, or the main safetensors of its denoiser in a diffusers folder.

    Where that is split into shards the first one stands for it, and a half-precision variant where there is no other.
    """
    if model.is_file():
        return model
    folders = [model / part for part in parts if (model / part).is_dir()] or [model]
    found = sorted(folders[0].glob("*.safetensors"), key=lambda path: (len(path.name.split(".")), path.name))
    if not found:
        raise PilotError(folders[0], "no .safetensors file", "a diffusers folder or a checkpoint", "Check model.base.")
    return found[0]


def base_hashes(model: Path, vae: Path | None, digest: Callable[[Path], str] = sha256) -> dict[str, str]:
    """ss_sd_model_name, ss_sd_model_hash, ss_new_sd_model_hash, and the vae's where one was given.

    For a diffusers folder the hashes are those of `weight_file`, since the folder as a whole has none. `digest` may be
    a memoised SHA-256.
    """
    main = weight_file(model)
    found = {
        "ss_sd_model_name": model.name,
        "ss_sd_model_hash": legacy_hash(main),
        "ss_new_sd_model_hash": digest(main),
    }
    if vae is not None:
        file = weight_file(vae, ("vae",))
        found |= {
            "ss_vae_name": vae.name,
            "ss_vae_hash": legacy_hash(file),
            "ss_new_vae_hash": digest(file),
        }
    return found
