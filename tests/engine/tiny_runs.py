"""Whole runs of tiny models for the tests: a workspace per family, made once a session, and runs in this process.

A run takes a second or two: resolution 32, six pictures, rank 4. Every run has a folder of its own; the caches are
shared within a family.
"""

from __future__ import annotations

import atexit
import io
import itertools
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from miniatures import tiny
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from trainpilot.config.merge import resolve
from trainpilot.engine import checkpoints
from trainpilot.engine.trainer import Ending, train
from trainpilot.errors import ExitCode
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag
from trainpilot.workspace import Workspace

SMALL = (
    "run.seed=7",
    "training.steps=6",
    "training.batch_size=2",
    "buckets.resolution=32",
    "buckets.min_side=16",
    "network.rank=4",
    "network.alpha=2",
    "optimizer.learning_rate=1e-3",
    "sampling.every_steps=0",
    "sampling.evaluate_at_end=false",
    "logging.tensorboard=false",
)
"""Settings of every run here; what a test adds comes after and wins."""

_SIZES = ((32, 32), (40, 36), (48, 24), (24, 48), (32, 40), (36, 36))
_COLOURS = ("red", "green", "blue", "white", "orange", "purple")
_numbers = itertools.count(1)


def write_pictures(folder: Path, count: int = len(_SIZES)) -> Path:
    """Noisy pictures of several shapes with tags as captions."""
    folder.mkdir(parents=True)
    for number in range(count):
        width, height = _SIZES[number % len(_SIZES)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zorp, {_COLOURS[number % len(_COLOURS)]}, large, on a table\n")
    return folder


@lru_cache(maxsize=8)
def workspace(family: str) -> Workspace:
    """The session's workspace of a family, with the dataset `2_zorp`; runs are added to it, nothing else changes."""
    root = Path(tempfile.mkdtemp(prefix=f"tiny-runs-{family}-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    write_pictures(root / "datasets" / "images" / "2_zorp")
    return Workspace(root)


def make(family: str, *settings: str, dataset: Path | None = None) -> RunDir:
    """A fresh run folder. settings: `section.key=value`, on top of `SMALL`; dataset: instead of the session's."""
    place = workspace(family)
    resolved = resolve(
        place,
        overrides=[*SMALL, f"run.name=run-{next(_numbers)}", *settings],
        direct={
            "datasets": [{"path": str(dataset or place.datasets / "images" / "2_zorp")}],
            "model.base": str(tiny(family)),
        },
    )
    return RunDir.create(place, resolved)


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it to tidy up."""


class KillAt(StopFlag):
    """Raises `Killed` at the start of forward pass number `batch`, from 0, of an attempt."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = batch

    def __call__(self) -> bool:  # type: ignore[override]
        # The trainer calls the flag once before every forward pass, and nowhere else.
        if self.left == 0:
            raise Killed
        self.left -= 1
        return self.poll()


class StopAfter(StopFlag):
    """Asks for a stop, as a person would, before forward pass number `batch`, from 0, of an attempt."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.left = batch

    def __call__(self) -> bool:  # type: ignore[override]
        if self.left == 0:
            self.set(ExitCode.STOPPED, "stopped by the test")
        self.left -= 1
        return self.poll()


def attempt(run: RunDir, stop: StopFlag | None = None) -> Ending:
    """One attempt of a run in this process, recorded as the verbs do. What the engine raises comes through."""
    stop = stop or StopFlag()
    run.begin_attempt("cpu")
    stop.requests, stop.beat = run.requests, run.state.beat
    try:
        ending = train(run, run.resolved, progress=Progress(out=io.StringIO()), stop=stop)
        run.finish(ending.status, ending.reason, ending.exit_code)
    finally:
        run.events.close()
        run.lock.release()
    return ending


def again(run: RunDir) -> RunDir:
    """The run as another process finds it: from its folder alone."""
    return RunDir.open(run.path, run.workspace)


def final_tensors(run: RunDir) -> dict[str, Tensor]:
    """What a run ended with: adapter and average of the last checkpoint (full precision), and the result file."""
    last = checkpoints.committed(run.checkpoints)[-1]
    state = load_file(last / "state.safetensors")
    found = {name: tensor for name, tensor in state.items() if name.startswith(("adapter/", "average/"))}
    return found | {f"result/{name}": tensor for name, tensor in load_file(run.result).items()}


def trained(family: str, *settings: str, dataset: Path | None = None) -> dict[str, Tensor]:
    """The final tensors of an uninterrupted run."""
    run = make(family, *settings, dataset=dataset)
    ending = attempt(run)
    assert ending.status == "done", ending
    return final_tensors(run)


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names whose tensors differ in any bit, in type or in shape, or are missing on one side."""

    def known(tensor: Tensor | None) -> tuple[object, ...]:
        if tensor is None:
            return ()
        return tensor.dtype, tensor.shape, tensor.reshape(-1).view(torch.uint8).numpy().tobytes()

    return sorted(name for name in one.keys() | other.keys() if known(one.get(name)) != known(other.get(name)))
