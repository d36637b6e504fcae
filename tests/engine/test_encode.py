"""Filling the cache: every picture and caption once, exactly the edited ones again, and nothing that is not finite."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.table import Table, build
from trainpilot.engine import encode
from trainpilot.engine.cache import LATENTS, TEXT, Cache
from trainpilot.engine.encode import LatentIndex, TextIndex
from trainpilot.errors import PilotError, RunFailed
from trainpilot.families.protocol import Conditioning, Family, Parts, TextOptions
from trainpilot.families.registry import adapter
from trainpilot.workspace import Workspace

FAMILIES = ("sd15", "sdxl", "flux")
# (width, height): two buckets of a 64 px run, and one picture that has to be cropped.
SIZES = [(64, 64), (96, 48), (64, 64), (96, 48), (70, 64)]


class Counting:
    """The real family, which notes what it was asked to encode and fails as told."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.pictures: list[int] = []  # batch sizes
        self.captions: list[str] = []
        self.room = 1000  # samples that fit in memory
        self.spoil = False

    @property
    def name(self) -> str:
        return self.family.name

    def encode_images(self, parts: Parts, pixels: Tensor) -> Tensor:
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.pictures.append(len(pixels))
        moments = self.family.encode_images(parts, pixels)
        return moments * float("nan") if self.spoil else moments

    def encode_text(self, parts: Parts, captions: Sequence[str], options: TextOptions) -> Conditioning:
        if len(captions) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.captions += captions
        return self.family.encode_text(parts, captions, options)


class Go:
    def check(self) -> None:
        return None


class Stopped(Exception):
    pass


class After:
    """Asks to stop at the n-th question."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stopped


class World:
    """A workspace with a few pictures, a tiny base model and a cache."""

    def __init__(self, root: Path, base: Path, family: str, flip: bool = False) -> None:
        self.workspace = Workspace(root)
        self.folder = root / "datasets" / "images" / "1_cat"
        self.folder.mkdir(parents=True)
        for number, size in enumerate(SIZES):
            self.draw(number, size, seed=number)
            (self.folder / f"{number}.txt").write_text(f"a cat, number {number}")
        self.config = RunConfig.model_validate(
            {
                "datasets": [{"path": str(self.folder), "flip": flip}],
                "buckets": {"resolution": 64, "step": 16, "min_side": 32, "max_side": 128},
            }
        )
        self.family = Counting(adapter(family))
        self.parts = adapter(family).load(base, frozenset({"vae", "text"}), dtype=torch.float32, device="cpu")
        self.cache = Cache(root / "cache", 1, say=self.say)
        self.said: list[str] = []
        self.progress: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def draw(self, number: int, size: tuple[int, int], seed: int) -> None:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.folder / f"{number}.png")

    def table(self) -> Table:
        return build(self.config, self.workspace)

    def latents(self, stop: encode.Stop | None = None, batch: int = 4, vae_hash: str = "v") -> LatentIndex:
        return encode.fill_latents(
            self.table(),
            self.family,  # type: ignore[arg-type]
            self.parts,
            self.cache,
            flips=[dataset.flip for dataset in self.config.datasets],
            vae_hash=vae_hash,
            batch=batch,
            stop=stop or Go(),
            progress=lambda done, of: self.progress.append((done, of)),
            say=self.say,
        )

    def text(self, stop: encode.Stop | None = None, batch: int = 4, **changes: Any) -> TextIndex:
        given: dict[str, Any] = {"options": TextOptions(t5_tokens=32), "hashed": "h", "dtype": torch.float32} | changes
        return encode.fill_text(
            [sample.caption for sample in self.table().samples],
            self.family,  # type: ignore[arg-type]
            self.parts,
            self.cache,
            batch=batch,
            stop=stop or Go(),
            progress=lambda done, of: self.progress.append((done, of)),
            say=self.say,
            **given,
        )


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in made:
            made[family] = adapter(family).tiny(tmp_path_factory.mktemp(family) / "base")
        return made[family]

    return base


@pytest.fixture
def world(tmp_path: Path, bases: Callable[[str], Path]) -> World:
    return World(tmp_path, bases("sd15"), "sd15")


@pytest.mark.parametrize("name", FAMILIES)
def test_cached_equals_encoded_now(tmp_path: Path, bases: Callable[[str], Path], name: str) -> None:
    world = World(tmp_path, bases(name), name, flip=True)
    index, text = world.latents(batch=3), world.text()
    table = world.table()
    assert set(index.keys) == {(sample.index, flip) for sample in table.samples for flip in (False, True)}
    for sample in table.samples:
        for flip in (False, True):
            pixels = encode.read_pixels(sample, sample.crop, flip)
            assert pixels.shape == (3, sample.bucket[1], sample.bucket[0]) and float(pixels.abs().max()) <= 1
            now = encode.encode_images_now(adapter(name), world.parts, pixels[None])[0]
            cached = index.read(world.cache, sample.index, flip)
            assert cached.dtype == torch.float32
            torch.testing.assert_close(cached, now, rtol=1e-4, atol=1e-4)  # batch sizes differ
        with torch.no_grad():
            read = adapter(name).encode_text(world.parts, [sample.caption], TextOptions(t5_tokens=32))
        found = text.read(world.cache, sample.caption)
        assert set(found) == set(read)
        for part, tensor in found.items():
            torch.testing.assert_close(tensor, read[part][0], rtol=1e-4, atol=1e-4)
    upright, mirrored = (index.read(world.cache, 0, flip) for flip in (False, True))
    assert not torch.equal(upright, mirrored)


def test_a_second_run_encodes_nothing(world: World) -> None:
    first, text = world.latents(), world.text()
    assert (first.encoded, first.reused) == (text.encoded, text.reused) == (5, 0)
    assert sum(world.family.pictures) == 5 and len(world.family.captions) == 5
    second, again = world.latents(), world.text()
    assert (second.encoded, second.reused) == (again.encoded, again.reused) == (0, 5)
    assert second.keys == first.keys and again.keys == text.keys
    assert sum(world.family.pictures) == 5 and len(world.family.captions) == 5
    assert world.progress[-1] == (5, 5)


def test_editing_one_picture_or_caption_makes_exactly_its_entry_again(world: World) -> None:
    before, text = world.latents(), world.text()
    world.family.pictures.clear()
    world.family.captions.clear()
    world.draw(2, SIZES[2], seed=99)
    (world.folder / "3.txt").write_text("a dog")
    after, now = world.latents(), world.text()
    assert world.family.pictures == [1] and world.family.captions == ["a dog"]
    assert [number for number in range(5) if before.keys[number, False] != after.keys[number, False]] == [2]
    assert set(now.keys) - set(text.keys) == {"a dog"}


def test_a_touched_copied_or_renamed_picture_is_not_encoded_again(world: World) -> None:
    world.latents()
    os.utime(world.folder / "0.png", (1, 1))
    shutil.copy(world.folder / "2.png", world.folder / "9.png")
    (world.folder / "4.png").rename(world.folder / "8.png")
    again = world.latents()
    assert sum(world.family.pictures) == 5
    assert len(again.keys) == 6 and len(set(again.keys.values())) == 5


def test_another_size_encoder_format_or_length_has_other_entries(world: World) -> None:
    first, text = set(world.latents().keys.values()), set(world.text().keys.values())
    assert first.isdisjoint(world.latents(vae_hash="w").keys.values())
    assert text.isdisjoint(world.text(hashed="i").keys.values())
    assert text.isdisjoint(world.text(options=TextOptions(clip_skip=2, t5_tokens=32)).keys.values())
    half = world.text(dtype=torch.bfloat16)
    assert text.isdisjoint(half.keys.values())
    assert half.read(world.cache, next(iter(half.keys)))["context"].dtype == torch.bfloat16
    world.config.buckets.resolution = 48
    assert first.isdisjoint(world.latents().keys.values())


def test_a_truncated_entry_is_made_anew(world: World) -> None:
    index = world.latents()
    path = world.cache._path(LATENTS, index.keys[1, False])
    path.write_bytes(path.read_bytes()[:-1])
    world.family.pictures.clear()
    assert world.latents().encoded == 1 and world.family.pictures == [1]


@pytest.mark.parametrize("kind", [LATENTS, TEXT])
def test_an_entry_that_vanishes_during_the_run_is_a_failure_to_retry(world: World, kind: str) -> None:
    index, text = world.latents(), world.text()
    key = index.keys[0, False] if kind == LATENTS else text.keys["a cat, number 0"]
    world.cache._path(kind, key).unlink()
    with pytest.raises(RunFailed, match="Start the run again"):
        index.read(world.cache, 0, False) if kind == LATENTS else text.read(world.cache, "a cat, number 0")


def test_batches_are_of_one_size_and_bounded(world: World) -> None:
    world.latents(batch=2)
    buckets = [len(members) for members in world.table().buckets.values()]
    assert len(buckets) > 1
    expected = [2] * sum(count // 2 for count in buckets) + [1] * sum(count % 2 for count in buckets)
    assert sorted(world.family.pictures, reverse=True) == expected


def test_out_of_memory_halves_the_batch_with_a_word(world: World) -> None:
    world.family.room = 1
    assert world.latents(batch=4).encoded == 5 and world.text(batch=4).encoded == 5
    assert world.family.pictures == [1] * 5 and len(world.family.captions) == 5
    assert [line for line in world.said if "latents" in line][-1].count("batch halved to 1")
    assert [line for line in world.said if "captions" in line] == [
        "encoding captions: batch halved to 2, because the device ran out of memory",
        "encoding captions: batch halved to 1, because the device ran out of memory",
    ]
    world.family.room = 0
    with pytest.raises(RunFailed, match="batch of one"):
        world.text(hashed="other")


def test_a_stop_is_honoured_between_batches_and_what_is_done_stays(world: World) -> None:
    with pytest.raises(Stopped):
        world.latents(After(1), batch=1)
    with pytest.raises(Stopped):
        world.text(After(2), batch=1)
    assert len(world.family.pictures) == 1 and len(world.family.captions) == 2
    assert world.latents().reused == 1 and world.text().reused == 2


def test_what_is_not_finite_never_reaches_the_cache(world: World) -> None:
    world.family.spoil = True
    with pytest.raises(PilotError, match="NaN or inf from the VAE in float32"):
        world.latents()
    assert not list((world.workspace.cache / LATENTS).glob("**/*.safetensors"))


def test_a_picture_that_breaks_after_the_scan_is_named(world: World) -> None:
    table = world.table()
    (world.folder / "2.png").write_bytes(b"no picture")
    world.table = lambda: table  # type: ignore[method-assign]
    with pytest.raises(PilotError, match=r"2\.png"):
        world.latents()


def test_what_is_filled_is_pinned(world: World) -> None:
    with world.cache.hold("run"):
        index = world.latents()
        Cache(world.workspace.cache, 1e-9, say=world.say).trim()
        assert world.cache.has(LATENTS, index.keys[0, False])
    Cache(world.workspace.cache, 1e-9, say=world.say).trim()
    assert not world.cache.has(LATENTS, index.keys[0, False])


def test_the_encoder_hash_follows_what_encodes_and_nothing_else(tmp_path: Path, bases: Callable[[str], Path]) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("sd15"), base)

    def hashes(vae: Path | None = None) -> tuple[str, str]:
        with Memo(tmp_path / "hashes.sqlite") as memo:
            return (
                encode.encoder_hash(base, "vae", memo, Go(), vae=vae),
                encode.encoder_hash(base, "text", memo, Go()),
            )

    first = hashes()
    assert first == hashes() and first[0] != first[1]
    (base / "unet" / "config.json").write_text("{}")
    assert hashes() == first
    (base / "vae" / "config.json").write_text("{}")
    second = hashes()
    assert second[0] != first[0] and second[1] == first[1]
    next((base / "tokenizer").iterdir()).write_text("{}")
    third = hashes()
    assert third[0] == second[0] and third[1] != second[1]
    assert hashes(vae=bases("sd15") / "vae")[0] not in {first[0], second[0]}
    file = next((bases("sd15") / "vae").glob("*.safetensors"))
    assert hashes(vae=file) == (hashes(vae=file)[0], third[1]) and hashes(vae=file)[0] != third[0]
    with Memo(tmp_path / "other.sqlite") as memo, pytest.raises(Stopped):
        encode.encoder_hash(base, "text", memo, After(0))


def test_reasons_why_something_cannot_be_cached() -> None:
    def config(**changes: Any) -> RunConfig:
        return RunConfig.model_validate({"datasets": [{"path": "a"}, {"path": "b"}]} | changes)

    assert encode.dynamic_latent_reasons(config()) == [] == encode.dynamic_text_reasons(config())
    fixed = config(datasets=[{"path": "a", "flip": True, "captions": {"dropout_rate": 0.1, "trigger": "zorp"}}])
    assert encode.dynamic_latent_reasons(fixed) == [] == encode.dynamic_text_reasons(fixed)
    cropped = config(datasets=[{"path": "a"}, {"path": "b", "random_crop": True}], cache={"latents": False})
    first, second = encode.dynamic_latent_reasons(cropped)
    assert "cache.latents" in first and "datasets.1.random_crop" in second
    for changes, word in (
        ({"cache": {"text": False}}, "cache.text"),
        ({"text_encoder": {"train": True}}, "text_encoder.train"),
        ({"datasets": [{"path": "a", "captions": {"shuffle": True}}]}, "datasets.0.captions.shuffle"),
        ({"datasets": [{"path": "a", "captions": {"tag_dropout_rate": 0.1}}]}, "tag_dropout_rate"),
        ({"datasets": [{"path": "a", "captions": {"wildcards": True}}]}, "wildcards"),
    ):
        (reason,) = encode.dynamic_text_reasons(config(**changes))
        assert word in reason
