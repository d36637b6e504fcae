"""One update: accumulation, partial batches, weights, masks, caches, and that no draw depends on what else was drawn.

The references are other ways to the same number: single samples added up, a mask and its opposite, one process and two.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from miniatures import FAMILIES
from PIL import Image
from torch import Tensor
from variants import NOT_PREPARED, Variant, same, workspace

from trainpilot.config.schema import RunConfig
from trainpilot.engine.batches import Batch, Batches
from trainpilot.engine.cache import Cache
from trainpilot.engine.encode import encode_images_now
from trainpilot.engine.parallel import World
from trainpilot.engine.setup import Phases, prepare
from trainpilot.engine.trainer import Trainer
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag

ONE_SIZE = ("buckets.enabled=false",)  # so that any samples may share a batch


def gradient(trainer: Trainer, batches: list[Batch], step: int = 0) -> tuple[float, dict[str, Tensor]]:
    """Summed loss and gradient of some batches, without an update."""
    parameters = dict(trainer.prepared.adapter.named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    total = 0.0
    for batch in batches:
        loss = trainer.update.loss(step, batch)
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the largest number of the whole gradient: a parameter of nearly none has only rounding."""
    assert one.keys() == other.keys() and one
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    assert largest > 0
    worst = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert worst <= tolerance * largest, f"{worst / largest:.2g}"


def singles(trainer: Trainer, samples: list[int], step: int = 0) -> list[float]:
    """The loss of each sample on its own, in its own slot, as if it were the whole step."""
    with torch.no_grad():
        return [
            float(trainer.update.loss(step, trainer.batches.read(step, 0, [sample], slot, 1)))
            for slot, sample in enumerate(samples)
        ]


@contextmanager
def in_double(trainer: Trainer) -> Iterator[None]:
    """The denoiser in float64: in float32 a batch of another size already rounds to 1e-4 of a gradient."""
    denoiser: Any = trainer.prepared.parts.denoiser

    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    def inputs(_: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        added = {key: widen(value) for key, value in (named.get("added_cond_kwargs") or {}).items()}
        named = {key: widen(value) for key, value in named.items()} | ({"added_cond_kwargs": added} if added else {})
        return tuple(widen(value) for value in positional), named

    hook = denoiser.register_forward_pre_hook(inputs, with_kwargs=True)
    denoiser.double()
    try:
        yield
    finally:
        hook.remove()
        denoiser.float()


@pytest.mark.parametrize("family", FAMILIES)
def test_accumulated_batches_are_one_larger_batch(family: str) -> None:
    trainer = Variant(family, ONE_SIZE).trainer()
    read = trainer.batches.read
    with in_double(trainer):
        whole, of_whole = gradient(trainer, [read(0, 0, [0, 1, 2, 3], 0, 4)])
        parts, of_parts = gradient(trainer, [read(0, 0, [0, 1], 0, 4), read(0, 1, [2, 3], 2, 4)])
    assert parts == pytest.approx(whole, rel=1e-6)
    close(of_whole, of_parts, 1e-6)


def test_a_partial_batch_weighs_as_much_as_its_samples() -> None:
    trainer = Variant("sd15", ONE_SIZE).trainer()
    alone = singles(trainer, [0, 1, 2])
    batches = [trainer.batches.read(0, 0, [0, 1], 0, 3), trainer.batches.read(0, 1, [2], 2, 3)]
    measured = trainer.update.run(0, batches)
    assert measured is not None
    assert float(measured[0]) == pytest.approx(sum(alone) / 3, rel=1e-6)


def test_regularisation_pictures_weigh_as_configured() -> None:
    along = (*ONE_SIZE, "datasets.1.regularization=true", "loss.prior_weight=0.25")
    trainer = Variant("sd15", along, ("2_zorp", "1_class")).trainer()
    table = trainer.prepared.table
    regular = next(sample.index for sample in table.samples if sample.regularization)
    batch = trainer.batches.read(0, 0, [0, regular], 0, 2)
    assert batch.weights.tolist() == [1, 0.25]
    plain = Variant("sd15", (*ONE_SIZE, "datasets.1.regularization=true"), ("2_zorp", "1_class")).trainer()
    assert plain.config.loss.prior_weight == 1
    first, second = singles(plain, [0, regular])
    with torch.no_grad():
        assert float(plain.update.loss(0, batch)) == pytest.approx((first + 0.25 * second) / 2, rel=1e-6)


def masks(folder: Path, *, upper: bool, lower: bool) -> Path:
    folder.mkdir()
    for path in (workspace().datasets / "images" / "2_zorp").glob("*.png"):
        with Image.open(path) as picture:
            mask = np.zeros((picture.height, picture.width), dtype=np.uint8)
            half = picture.height // 2
            mask[:half], mask[half:] = 255 * upper, 255 * lower
            Image.fromarray(mask).save(folder / path.name)
    return folder


def test_a_mask_and_its_opposite_make_the_whole_loss(tmp_path: Path) -> None:
    """A mask scales the distance place by place, so the two halves add up, white changes nothing, black leaves none."""
    sides = {"upper": (True, False), "lower": (False, True), "white": (True, True), "black": (False, False)}
    losses: dict[str, float] = {"none": sum(Variant("sd15").loss())}
    for name, (upper, lower) in sides.items():
        folder = masks(tmp_path / name, upper=upper, lower=lower)
        losses[name] = sum(Variant("sd15", (f"datasets.masks={folder}",)).loss())
    assert losses["white"] == pytest.approx(losses["none"], rel=1e-6)
    assert losses["black"] == 0
    assert losses["upper"] + losses["lower"] == pytest.approx(losses["none"], rel=1e-6)
    assert 0.2 < losses["upper"] / losses["none"] < 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_encoded_while_training_gives_the_loss_of_what_was_cached(family: str) -> None:
    cached = Variant(family).loss()
    live = Variant(family, ("cache.latents=false", "cache.text=false"))
    assert live.inputs[0].moments is None and live.inputs[0].conditioning is None
    assert live.loss() == pytest.approx(cached, rel=1e-5)


def test_a_mirrored_draw_is_the_encoded_mirror_image() -> None:
    plain, flipping = Variant("sd15"), Variant("sd15", ("datasets.flip=true",))
    trainer = flipping.trainer()
    mirrored = 0
    for straight, pixels, batch in zip(plain.batches, flipping.batches, flipping.inputs, strict=True):
        assert pixels.pixels is not None and straight.pixels is not None and batch.moments is not None
        for number in range(len(batch.slots)):
            picture = pixels.pixels[number : number + 1]
            expected = encode_images_now(trainer.prepared.family, _with_vae(trainer), picture)
            torch.testing.assert_close(batch.moments[number : number + 1], expected, rtol=1e-4, atol=1e-4)
            if not torch.equal(picture[0], straight.pixels[number]):
                mirrored += 1
                assert torch.equal(picture[0], straight.pixels[number].flip(-1))
    assert 0 < mirrored < sum(len(batch.slots) for batch in flipping.batches)


def _with_vae(trainer: Trainer) -> Any:
    config = trainer.config
    return trainer.prepared.family.load(
        Path(config.model.base), frozenset({"vae"}), dtype=torch.float32, device="cpu", vae=None
    )


def test_a_batch_does_not_depend_on_what_was_read_before_it() -> None:
    along = (
        *("datasets.captions.shuffle=true", "datasets.captions.dropout_rate=0.3", "datasets.flip=true"),
        *ONE_SIZE,
        "datasets.random_crop=true",
    )
    there, back = Variant("sd15", along).trainer().batches, Variant("sd15", along).trainer().batches
    forward = {step: [there.read(step, *part) for part in there.layout(step)] for step in range(5)}
    for step in (4, 1, 3, 1):
        for one, other in zip(forward[step], [back.read(step, *part) for part in back.layout(step)], strict=True):
            assert same(one.__dict__, other.__dict__)
    ahead = dict(there.from_step(2))
    assert same([b.__dict__ for b in ahead[3]], [b.__dict__ for b in forward[3]])


@pytest.mark.parametrize("along", [(), ("network.dropout=0.5",), ("text_encoder.train=true",)])
def test_sampling_and_other_draws_change_nothing(along: tuple[str, ...]) -> None:
    settings = (*along, "sampling.every_steps=1", "sampling.prompts=['a zorp']")
    undisturbed = Variant("sd15", settings).weights(2)
    trainer = Variant("sd15", settings).trainer()
    for step in range(2):
        trainer.sample()
        torch.rand(step + 3)
        trainer.update.run(step, [trainer.batches.read(step, *part) for part in trainer.batches.layout(step)])
    assert same(undisturbed, trainer.prepared.adapter.tensors())


def test_two_processes_see_what_one_would() -> None:
    """The second process's batches of a step are those that one process with twice the accumulation sees second."""
    along = ("datasets.captions.shuffle=true", "datasets.flip=true", "datasets.random_crop=true")
    single = Variant("sd15", (*along, "training.gradient_accumulation=2"))
    nothing = single.trainer().batches.encoded
    alone = Batches(single.config, single.table, nothing, steps=6)
    config = Variant("sd15", along).config
    pair = [Batches(config, single.table, nothing, steps=6, rank=rank, world=2) for rank in (0, 1)]
    assert {one.steps_per_epoch for one in (*pair, alone)} == {alone.steps_per_epoch}
    for step in range(2 * alone.steps_per_epoch):
        expected = [alone.read(step, *part) for part in alone.layout(step)]
        shared = [one.read(step, *part) for one in pair for part in one.layout(step)]
        shared.sort(key=lambda batch: batch.place)
        assert same([batch.__dict__ for batch in shared], [batch.__dict__ for batch in expected])
        slots = [slot for batch in shared for slot in batch.slots]
        assert slots == list(range(shared[0].of))


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_no_number(family: str) -> None:
    """Dropout is on: what is computed again has to drop the same."""
    found = []
    for on in ("true", "false"):
        trainer = Variant(family, ("network.dropout=0.3", f"memory.gradient_checkpointing={on}")).trainer()
        assert trainer.prepared.parts.denoiser is not None
        checkpointed = [
            module
            for module in trainer.prepared.parts.denoiser.modules()
            if getattr(module, "gradient_checkpointing", False)
        ]
        assert bool(checkpointed) == (on == "true")
        found.append(gradient(trainer, [trainer.batches.read(0, *part) for part in trainer.batches.layout(0)]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    close(found[0][1], found[1][1], 1e-6)


class Half:
    """A configuration without the sections that `prepare` is said not to read."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        if f"{name}." in NOT_PREPARED:
            raise AttributeError(f"prepare reads {name}")
        return getattr(self._config, name)


@pytest.mark.parametrize("family", FAMILIES)
def test_preparing_does_not_read_what_the_variants_share_it_over(family: str) -> None:
    resolved = Variant(family).resolved
    run = RunDir.create(workspace(), resolved)
    phases = Phases(run, Progress(out=io.StringIO()), StopFlag())
    config: Any = Half(resolved.config)
    prepared = prepare(run, config, World(), phases, Cache(workspace().cache, 1, say=phases.say))
    assert len(prepared.table.samples) == 6
    assert json.loads((run.path / "state.json").read_text())["phase"] == "load"


def test_compiling_where_a_process_has_no_batch() -> None:
    """One batch a step for three processes: the third never trains, and says so instead of looking for its first."""
    alone = Variant("sd15", (*ONE_SIZE, "training.batch_size=64", "memory.compile=true"))
    run = RunDir.create(workspace(), alone.resolved)
    out = io.StringIO()
    progress, stop = Progress(out=out), StopFlag()
    trainer = Trainer(run, alone.prepared, World(rank=2, size=3), Phases(run, progress, stop), progress, stop)
    assert [trainer.batches.layout(step) for step in range(3)] == [[], [], []]
    trainer._compile()
    assert "compile: off in this process" in out.getvalue()
