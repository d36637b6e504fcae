"""One run in one go, and the same run killed, stopped and resumed: the comparison behind "a resume is exact".

Everything that has a memory or draws at random is switched on. Used by test_resume.py for some pairs of family and
optimizer, or for all, and by benchmarks/resume_matrix.py, which keeps the figures of all. A kill is an exception in
this process (`Killed`); tests/faults/test_kill_training.py does it with kill -9.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from tiny_runs import KillAt, Killed, StopAfter, again, attempt, differing, final_tensors, make, trained

from trainpilot.engine import checkpoints
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir

FAMILIES = ("sd15", "sdxl", "flux")

EVERYTHING = (
    "text_encoder.train=true",
    "text_encoder.learning_rate=5e-4",
    "training.ema_decay=0.9",
    "training.gradient_accumulation=2",
    "network.dropout=0.2",
    "datasets.captions.shuffle=true",
    "datasets.captions.keep_tokens=1",
    "datasets.captions.dropout_rate=0.3",
    "datasets.flip=true",
    "datasets.random_crop=true",
    "schedule.name=cosine",
    "schedule.warmup_steps=2",
    "sampling.every_steps=2",
    "sampling.prompts=['zorp --w 16 --h 16']",
    "sampling.steps=1",
    "saving.every_steps=2",
    "saving.keep=2",
)

OPTIMIZERS = {
    "adamw": (),
    # Adapter tensors are far below the 4096 elements from which bitsandbytes keeps 8-bit states by itself.
    "adamw8bit": ("optimizer.args.min_8bit_size=16",),
    "lion": ("optimizer.beta2=0.99",),
    "lion8bit": ("optimizer.args.min_8bit_size=16", "optimizer.beta2=0.99"),
    "adafactor": (),
    "prodigy": ("optimizer.learning_rate=1", "text_encoder.learning_rate=1"),
    "adamw_schedulefree": (),
}


@dataclass(frozen=True)
class Interrupted:
    """What became of a run of six steps, two forward passes each, that was interrupted twice.

    killed_in, stopped_in: the forward pass of their attempt, from 0; resumed_from: the checkpoint after each;
    compared: names of the final tensors of the run in one go; differing: those with other bits, or missing; steps: as
    the run told them; eight_bit: tensors of the optimizer's state that hold eight bits a number.
    """

    killed_in: int
    stopped_in: int
    resumed_from: list[str]
    compared: list[str]
    differing: list[str]
    steps: list[int]
    eight_bit: int


def killed(run: RunDir, batch: int) -> RunDir:
    """The run after an attempt that died at the start of forward pass `batch` of that attempt."""
    try:
        attempt(run, KillAt(batch))
    except Killed:
        return again(run)
    raise AssertionError(f"the attempt ended before its forward pass {batch}")


def interrupted(family: str, optimizer: str) -> Interrupted:
    """Train in one go, then again with a kill and a stop on the way."""
    settings = (*EVERYTHING, f"optimizer.name={optimizer}", *OPTIMIZERS[optimizer])
    straight = trained(family, *settings)
    # Checkpoints come every second step: the first kill is within steps 3 to 4 (or between their passes), and the stop
    # leaves a checkpoint where there would be none.
    draws = random.Random(f"{family} {optimizer}")
    killed_in, stopped_in = draws.randrange(4, 8), draws.randrange(2, 6)
    run = killed(make(family, *settings), killed_in)
    resumed_from = [_newest(run)]
    ending = attempt(run, StopAfter(stopped_in))
    assert (ending.status, int(ending.exit_code)) == ("stopped", 4), ending
    resumed_from.append(_newest(run))
    run = again(run)
    assert attempt(run).status == "done"
    state = load_file(checkpoints.committed(run.checkpoints)[-1] / "state.safetensors")
    return Interrupted(
        killed_in,
        stopped_in,
        resumed_from,
        sorted(straight),
        differing(final_tensors(run), straight),
        [event["step"] for event in history(run.events.path) if event["kind"] == "step"],
        sum(name.startswith("optimizer/") and tensor.dtype == torch.uint8 for name, tensor in state.items()),
    )


def _newest(run: RunDir) -> str:
    return checkpoints.committed(run.checkpoints)[-1].name
