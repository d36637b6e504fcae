"""A LoRA file in the folders of the generation tools: a link where links work, else a copy. Nothing is overwritten.

Used by `trainpilot link`. No torch.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainpilot.errors import PilotError
from trainpilot.formats.hashes import sha256

# Where a tool looks for LoRAs below its own folder; Forge and its kin keep A1111's layout.
FOLDERS = {"comfyui": ("models/loras",), "a1111": ("models/Lora",)}
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True)
class Linked:
    """place: in the tool's folder; how: what was done; why: the system's reason where a link was not possible."""

    place: Path
    how: Literal["link", "copy", "already there"]
    why: str = ""


def folder_of(tool: str, given: Path) -> Path:
    """The folder for LoRAs of a tool. given: the tool's folder, or that for LoRAs itself."""
    found = next((given / inner for inner in FOLDERS[tool] if (given / inner).is_dir()), None)
    if found is not None:
        return found
    if given.is_dir() and given.name.lower() in ("lora", "loras"):
        return given
    allowed = f"a folder with {' or '.join(FOLDERS[tool])} in it"
    raise PilotError(f"--{tool}", given, allowed, "Name the folder where the tool is installed, or its LoRA folder.")


def link(file: Path, folder: Path, *, copy: bool = False) -> Linked:
    """Put `file` into `folder` under its own name. copy: do not try a link.

    PilotError where something else has that name.
    """
    source = file.resolve()
    place = folder / file.name
    if place.is_symlink() or place.exists():
        if place.resolve() == source or (place.is_file() and _same(place, source)):
            return Linked(place, "already there")
        given = "another file of that name" if place.exists() else "a link that leads nowhere"
        raise PilotError(place, given, "a free name", "Move it away, or rename the LoRA.")
    if not copy:
        try:
            place.symlink_to(source)
            return Linked(place, "link")
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise PilotError(place, str(error), "a folder that can be written", "Check its owner.") from error
            why = error.strerror or str(error)
    else:
        why = "a copy was asked for"
    _copy(source, place)
    return Linked(place, "copy", why)


def _same(place: Path, source: Path) -> bool:
    return place.stat().st_size == source.stat().st_size and sha256(place) == sha256(source)


def _copy(source: Path, place: Path) -> None:
    beside = place.with_name(f".{place.name}.writing-{os.getpid()}")
    try:
        shutil.copyfile(source, beside)
        beside.rename(place)
    finally:
        beside.unlink(missing_ok=True)
