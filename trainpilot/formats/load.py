"""Reading a LoRA file in either naming. Used by warm starts, `convert`, `verify` and sampling with a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from trainpilot.errors import PilotError
from trainpilot.formats import kohya, peft, storage
from trainpilot.formats.identify import family_of, naming_of
from trainpilot.formats.state import AdapterState
from trainpilot.models.safetensors_header import read_header


class LoraFile(NamedTuple):
    """A file's content, its tensors in the file's dtype."""

    family: str
    state: AdapterState
    metadata: dict[str, str]


def read(path: Path, family: str | None = None) -> LoraFile:
    """Read `path`; `family` where the file does not tell. Raises PilotError that names what is not understood."""
    header = read_header(path)
    naming = naming_of(path, list(header.tensors))
    family = family or family_of(path, header, naming)
    tensors, metadata = storage.read(path)
    decode = kohya.decode if naming == "kohya" else peft.decode
    try:
        state = decode(family, tensors, metadata, str(path))
    except (RuntimeError, IndexError) as error:
        # Shapes that do not fit one another: the header is sound, but the content is no adapter.
        raise PilotError(path, str(error), "weights whose shapes fit one another", "Take another file.") from error
    return LoraFile(family, state, metadata)
