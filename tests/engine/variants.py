"""One configuration of a tiny run, and what can be observed of it: plan, batches, loss, gradient, weights, file, run.

Used by the tests that compare two configurations. Everything is real: the merge, the plan, `prepare`, the trainer's own
step. The models and what they encode are made once a session; variants that differ only in what the preparation does
not look at (`NOT_PREPARED`) share one preparation.
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from miniatures import tiny
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainpilot.config.merge import Resolved, resolve
from trainpilot.config.schema import RunConfig
from trainpilot.datasets.table import Table, build
from trainpilot.engine import result
from trainpilot.engine.batches import Batch, Batches
from trainpilot.engine.cache import Cache
from trainpilot.engine.encoded import Encoded
from trainpilot.engine.parallel import World
from trainpilot.engine.setup import Phases, Prepared, prepare
from trainpilot.engine.trainer import Trainer
from trainpilot.engine.weights import evaluation_weights
from trainpilot.families.card import card
from trainpilot.families.registry import adapter
from trainpilot.models.detect import detect
from trainpilot.plan import make, steps, timing
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag
from trainpilot.workspace import Workspace

BASE = (
    "run.seed=7",
    "training.batch_size=2",
    "buckets.resolution=32",
    "buckets.min_side=16",
    "text_encoder.t5_tokens=32",
    "network.rank=4",
    "network.alpha=2",
    "optimizer.learning_rate=1e-3",
    "sampling.steps=2",
    "sampling.evaluate_at_end=false",
    "logging.tensorboard=false",
)
"""Settings of every variant here; its own come after and win."""

NOT_PREPARED = ("noise.", "loss.", "optimizer.", "schedule.", "training.", "saving.")
"""Sections that `prepare` does not read; tests/engine/test_step.py holds it to that."""

_SIZES = ((32, 32), (48, 24), (24, 48), (16, 24), (40, 40), (72, 20))
_WORDS = ("red", "green", "blue", "white", "orange", "purple")


@lru_cache(maxsize=1)
def workspace() -> Workspace:
    """The session's workspace: datasets, other base models, prompt files; made once."""
    root = Path(tempfile.mkdtemp(prefix="variants-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    place = Workspace(root)
    data = place.datasets / "images"
    _pictures(data / "2_zorp")
    _pictures(data / "1_class", first=6, count=2)
    _masks(data / "masks", data / "2_zorp")
    _pictures(data / "2_silent", captions=False)
    broken = _pictures(data / "2_broken")
    (broken / "0.png").write_bytes((broken / "1.png").read_bytes()[:300])
    fields = _pictures(data / "2_fields", captions=False)
    rows = [{"file_name": f"{n}.png", "text": f"zorp {n}", "other": f"other {n}"} for n in range(len(_SIZES))]
    (fields / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "prompts.txt").write_text("a zorp from a file --d 5\n")
    return place


def _pictures(folder: Path, *, first: int = 0, count: int = len(_SIZES), captions: bool = True) -> Path:
    """Noisy pictures of several shapes; captions are tags, two lines, with a wildcard, and a second file's ending."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        width, height = _SIZES[number % len(_SIZES)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        if captions:
            word = _WORDS[number % len(_WORDS)]
            text = f"zorp, {word}, {{large|small}}, on; a table ||| fixed, tail\nanother {word} zorp\n"
            (folder / f"{number}.txt").write_text(text)
            (folder / f"{number}.caption").write_text(f"a {word} zorp of the other file\n")
    return folder


def _masks(folder: Path, pictures: Path) -> None:
    folder.mkdir()
    for path in pictures.glob("*.png"):
        with Image.open(path) as picture:
            mask = np.zeros((picture.height, picture.width), dtype=np.uint8)
            mask[: picture.height // 2] = 255
            Image.fromarray(mask).save(folder / path.name)


@lru_cache(maxsize=4)
def other_base(family: str) -> Path:
    """Another tiny model of the family, from another seed."""
    return adapter(family).tiny(workspace().root / "others" / family, seed=1)


@lru_cache(maxsize=4)
def lora_file(family: str) -> Path:
    """A LoRA of the base variant's shape, whose up weights are not zero."""
    tensors, metadata = Variant(family).result
    path = workspace().root / f"{family}-lora.safetensors"
    save_file(tensors, path, metadata=metadata)
    return path


class Variant:
    """A tiny run's configuration, and its observable sides, each computed when asked for.

    settings: `section.key=value` on top of BASE; data: folders of the workspace's datasets; profile: as --profile.
    """

    def __init__(
        self, family: str, settings: Sequence[str] = (), data: Sequence[str] = ("2_zorp",), profile: str = "custom"
    ) -> None:
        self.family, self.settings, self.data, self.profile = family, tuple(settings), tuple(data), profile

    @cached_property
    def resolved(self) -> Resolved:
        folders = [{"path": name} for name in self.data]
        direct: dict[str, object] = {"datasets": folders, "model.base": str(tiny(self.family))}
        if self.profile == "custom":
            direct["training.steps"] = 6
        return resolve(
            workspace(), profile=self.profile, overrides=[*BASE, "run.name=variant", *self.settings], direct=direct
        )

    @property
    def config(self) -> RunConfig:
        return self.resolved.config

    @cached_property
    def table(self) -> Table:
        return build(self.config, workspace())

    @cached_property
    def plan(self) -> dict[str, Any]:
        device = timing.Device("cpu", "a CPU", None, 0.1, "given by the test")
        base = detect(Path(self.config.model.base))
        made = make(self.resolved, self.table, card(self.family), base, device=device, environment={})
        return made.as_dict()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's header but what the clock writes."""
        training = self.config.training
        writer = result.Writer(
            config=self.config,
            card=card(self.family),
            table=self.table,
            length=steps.length(training, self.table.batches_per_epoch(training.batch_size)),
            prediction=detect(Path(self.config.model.base)).prediction,
            name=self.config.run.name or "",
            hashes={},
            session=1,
            began=0.0,
        )
        timed = ("ss_training_finished_at", "modelspec.date")
        return {key: value for key, value in writer.metadata(6, 1).items() if key not in timed}

    @cached_property
    def batches(self) -> list[Batch]:
        """The batches of the first two epochs, with pixels: nothing is encoded."""
        nothing = Encoded(Cache(workspace().cache, 1, say=lambda text: None), None, None)
        return _read_all(Batches(self.config, self.table, nothing, steps=6), self._two_epochs)

    @property
    def _two_epochs(self) -> int:
        training = self.config.training
        batches = self.table.batches_per_epoch(training.batch_size)
        return 2 * steps.steps_per_epoch(batches, training.gradient_accumulation)

    @cached_property
    def inputs(self) -> list[Batch]:
        """The batches of the first two epochs, as the step gets them: encoded where that is cached."""
        return _read_all(self.trainer().batches, self._two_epochs)

    @property
    def prepared(self) -> Prepared:
        """Shared with all variants that differ in NOT_PREPARED alone; the adapter is as it was made."""
        looked_at = tuple(one for one in self.settings if not one.startswith(NOT_PREPARED))
        shared, initial = _prepared(self.family, looked_at, self.data)
        shared.adapter.load(initial)
        for parameter in shared.adapter.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return replace(shared, config=self.config)

    def trainer(self) -> Trainer:
        """A trainer of this configuration before its first step; the next one takes the shared adapter from it."""
        run = RunDir.create(workspace(), self.resolved)
        stop, progress = StopFlag(), Progress(out=io.StringIO())
        return Trainer(run, self.prepared, World(), Phases(run, progress, stop), progress, stop)

    def loss(self, step: int = 0) -> list[float]:
        """Every batch's share of a step's loss, before any update."""
        trainer = self.trainer()
        with torch.no_grad():
            return [float(trainer.update.loss(step, batch)) for batch in _read_step(trainer.batches, step)]

    def gradient(self, step: int = 0) -> dict[str, Tensor]:
        """What a step's backward passes leave, before any update. Parameters without a gradient are left out."""
        trainer = self.trainer()
        for batch in _read_step(trainer.batches, step):
            trainer.update.loss(step, batch).backward()
        return {
            name: parameter.grad.clone()
            for name, parameter in trainer.prepared.adapter.named_parameters()
            if parameter.grad is not None
        }

    def weights(self, updates: int = 3) -> dict[str, Tensor]:
        """The adapter after the first updates."""
        trainer = self._after(updates)
        return {name: tensor.clone() for name, tensor in trainer.prepared.adapter.tensors().items()}

    def _after(self, updates: int) -> Trainer:
        trainer = self.trainer()
        for step in range(updates):
            assert trainer.update.run(step, _read_step(trainer.batches, step)) is not None
        return trainer

    @cached_property
    def result(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and header of the LoRA file after three updates."""
        trainer = self._after(3)
        writer = result.writer(trainer.run, trainer.prepared, trainer.length, 0.0)
        path = trainer.run.path / "result.safetensors"
        with evaluation_weights(trainer.prepared.adapter, trainer.optimizer, trainer.average):
            writer.write(path, trainer.prepared.adapter.collect(), 3, 1)
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return load_file(path), header["__metadata__"]

    def pictures(self) -> dict[str, tuple[tuple[int, ...], bytes]]:
        """Size and pixels of what is sampled before the first step, by file name."""
        trainer = self.trainer()
        trainer.sample()
        found = {}
        for path in sorted(trainer.run.samples.glob("*.png")):
            with Image.open(path) as picture:
                found[path.name] = (picture.size, picture.tobytes())
        return found


@lru_cache(maxsize=6)
def _prepared(family: str, settings: tuple[str, ...], data: tuple[str, ...]) -> tuple[Prepared, dict[str, Tensor]]:
    resolved = Variant(family, settings, data).resolved
    run = RunDir.create(workspace(), resolved)
    phases = Phases(run, Progress(out=io.StringIO()), StopFlag())
    prepared = prepare(run, run.config, World(), phases, Cache(workspace().cache, 1, say=phases.say))
    return prepared, {name: tensor.clone() for name, tensor in prepared.adapter.tensors().items()}


def _read_step(batches: Batches, step: int) -> list[Batch]:
    return [batches.read(step, *part) for part in batches.layout(step)]


def _read_all(batches: Batches, count: int) -> list[Batch]:
    return [batch for step in range(count) for batch in _read_step(batches, step)]


def same(one: Any, other: Any) -> bool:
    """Bit for bit the same, through lists, tuples and dicts; tensors also in shape and number format."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        both = isinstance(one, Tensor) and isinstance(other, Tensor)
        return both and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)
