"""From one naming to the other, exactly where both can say the same. Used by `trainpilot convert` and the panel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainpilot.errors import PilotError
from trainpilot.formats import kohya, load, peft
from trainpilot.formats.derived import OF_THE_FILE, free
from trainpilot.formats.identify import Identified, Naming, identify
from trainpilot.formats.storage import DTYPES

_HEADER = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Conversion:
    """What was converted: both files and what had to be decided, one sentence each."""

    source: Identified
    target: Identified
    notes: list[str] = field(default_factory=list)


def convert(
    source: Path, target: Path | None = None, to: Naming | None = None, dtype: str = "", family: str | None = None
) -> Conversion:
    """Write `source` in the other naming (or in `to`) to `target`, beside it by default.

    dtype: "fp16", "bf16" or "fp32"; empty keeps the file's. Metadata is kept, hashes are made anew. Raises PilotError
    where `target` exists, where the family is unknown, or for modules that the naming cannot express.
    """
    found = identify(source)
    naming: Naming = to or ("peft" if found.naming == "kohya" else "kohya")
    if target is None:
        stem = source.stem.removesuffix(".diffusers").removesuffix(".kohya")
        target = source.with_name(f"{stem}.{'diffusers' if naming == 'peft' else 'kohya'}.safetensors")
    free(target)
    if dtype and dtype not in DTYPES:
        raise PilotError("--dtype", dtype, ", ".join(DTYPES), "Choose one of these.")
    content = load.read(source, family)
    chosen = DTYPES[dtype] if dtype else _HEADER.get(found.dtype, torch.float32)
    metadata = {key: value for key, value in content.metadata.items() if key not in OF_THE_FILE}
    write = peft.write if naming == "peft" else kohya.write
    notes = write(target, content.family, content.state, metadata, chosen)
    return Conversion(found, identify(target), notes)
