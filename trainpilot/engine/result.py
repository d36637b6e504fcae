"""What a run hands over: the LoRA file in Kohya's naming (and diffusers' on request), verified before it says done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.hashes import Memo, file_hash
from trainpilot.datasets.table import Table
from trainpilot.engine.setup import Prepared
from trainpilot.families.card import Card
from trainpilot.formats import kohya, metadata, peft
from trainpilot.formats.hashes import base_hashes
from trainpilot.formats.state import AdapterState
from trainpilot.formats.verify import Verification, require, verify
from trainpilot.plan.steps import Length
from trainpilot.randomness import draw_seed
from trainpilot.runs.rundir import RunDir

SAVE_FORMATS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Writer:
    """Writes the LoRA files of one run. hashes: of the base model; session: a number that names the run in them."""

    config: RunConfig
    card: Card
    table: Table
    length: Length
    prediction: str
    name: str
    hashes: Mapping[str, str]
    session: int
    began: float

    def metadata(self, step: int, epoch: int) -> dict[str, str]:
        """The header's text after `step` updates, in the epoch that counts from 1."""
        progress = metadata.Progress(
            session_id=self.session,
            started_at=self.began,
            finished_at=time.time(),
            step=step,
            steps=self.length.steps,
            epoch=epoch,
            epochs=math.ceil(self.length.epochs),
            batches_per_epoch=self.table.batches_per_epoch(self.config.training.batch_size),
        )
        return metadata.build(
            self.config, self.card, self.table, progress, self.hashes, prediction=self.prediction, name=self.name
        )

    def write(self, path: Path, state: AdapterState, step: int, epoch: int) -> list[str]:
        """Kohya's naming. Returns notes of what could not be expressed plainly."""
        dtype = SAVE_FORMATS[self.config.precision.save]
        return kohya.write(path, self.config.model.family, state, self.metadata(step, epoch), dtype)

    def write_diffusers(self, path: Path, state: AdapterState, step: int, epoch: int) -> list[str]:
        """diffusers' naming, with the adapter's configuration in the header."""
        dtype = SAVE_FORMATS[self.config.precision.save]
        return peft.write(path, self.config.model.family, state, self.metadata(step, epoch), dtype)


def writer(run: RunDir, prepared: Prepared, length: Length, began: float) -> Writer:
    """The writer of a run; began: unix seconds of its first step."""
    config = prepared.config
    vae = Path(config.model.vae) if config.model.vae else None
    with Memo.of(run.workspace.cache) as memo:
        hashes = base_hashes(Path(config.model.base), vae, lambda path: file_hash(path, memo))
    return Writer(
        config=config,
        card=prepared.card,
        table=prepared.table,
        length=length,
        prediction=prepared.parts.prediction,
        name=run.name,
        hashes=hashes,
        session=draw_seed(config.run.seed, "session " + run.name) >> 31,
        began=began,
    )


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
