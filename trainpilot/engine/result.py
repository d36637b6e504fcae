"""What a run hands over: the LoRA file in Kohya's naming (and diffusers' on request), verified before it says done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainpilot.config.schema import RunConfig
from trainpilot.formats import kohya, peft
from trainpilot.formats.state import AdapterState
from trainpilot.formats.verify import Verification, require, verify
from trainpilot.runs.rundir import RunDir

SAVE_FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Writer:
    """Writes LoRA files of one run; `metadata` makes their header, given step, epoch and the time training began."""

    config: RunConfig
    metadata: Callable[[int, int, float], dict[str, str]]
    began: float

    def write(self, path: Path, state: AdapterState, step: int, epoch: int) -> list[str]:
        """Kohya's naming. Returns notes of what could not be expressed plainly."""
        dtype = SAVE_FORMATS[self.config.precision.save]
        return kohya.write(path, self.config.model.family, state, self.metadata(step, epoch, self.began), dtype)

    def write_diffusers(self, path: Path, state: AdapterState, step: int, epoch: int) -> list[str]:
        """diffusers' naming, with the adapter's configuration in the header."""
        dtype = SAVE_FORMATS[self.config.precision.save]
        return peft.write(path, self.config.model.family, state, self.metadata(step, epoch, self.began), dtype)


def finish(
    run: RunDir, writer: Writer, state: AdapterState, *, step: int, epoch: int, check: Callable[[], None]
) -> list[Verification]:
    """Write the result and load it again as a generation tool would. Raises PilotError where it does not hold."""
    base = Path(run.config.model.base)
    files = [run.result]
    notes = writer.write(run.result, state, step, epoch)
    if run.config.saving.diffusers:
        files.append(run.path / f"{run.name}.diffusers.safetensors")
        notes += writer.write_diffusers(files[-1], state, step, epoch)
    for note in notes:
        run.events.append("notice", text=note)
    found = []
    for file in files:
        check()
        began = time.monotonic()
        result = verify(file, base, run.config.model.family, reference=state, check=check)
        require(result)
        run.events.append(
            "notice",
            text=f"{file.name} verified: {result.keys_matched} keys, largest relative error "
            f"{result.max_relative_error:.1e}, {time.monotonic() - began:.1f} s",
        )
        found.append(result)
    return found
