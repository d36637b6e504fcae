"""Each metric on pictures whose answer is known: drawings of the demo's character and of pilot-tiny's scenes."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from scripts.pilot_tiny import demo_data, scenes, zorp
from trainpilot.evaluate import protocol
from trainpilot.evaluate.embeddings import Embedders, Missing
from trainpilot.evaluate.interval import Estimate, estimate
from trainpilot.evaluate.metrics import Bench, Picture, memorisation, metrics
from trainpilot.evaluate.metrics.memorisation import copy_limit, thumbnails
from trainpilot.evaluate.protocol import FOLDER, Asked, Subject
from trainpilot.workspace import Workspace

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"
SEEDS = (1, 2, 3)
ASKED = protocol.read(FOLDER / "protocol-pilot-tiny.toml").filled(Subject("zorp", "circle"))
Draw = Callable[[Asked, int], Image.Image]


def words(asked: Asked) -> tuple[str, str, str, str]:
    """(colour, size, position, background) of a prompt, read from what it means."""
    first = asked.means.partition(" and ")[0].split()
    colour, size = first[2], first[1]
    where = asked.means.partition(" circle ")[2] or asked.means.partition(f" {first[3]} ")[2]
    position = where.removeprefix("in the ").removeprefix("at the ").partition(" on ")[0].partition(" and")[0]
    return colour, size, position, asked.means.rsplit(" ", 2)[1]


def scene(asked: Asked, seed: int, shape: str = "circle") -> Image.Image:
    """What a base that follows prompts paints."""
    colour, size, position, background = words(asked)
    part = scenes.place(Random(f"{asked.number} {seed}"), shape, colour, size, position)
    return scenes.draw(scenes.Scene((part,), background))


def character(asked: Asked, seed: int) -> Image.Image:
    """What a perfect LoRA paints: the character as the prompt says, and controls as the base paints them."""
    if asked.group == "control":
        return scene(asked, seed)
    return zorp.draw(zorp.zorp(Random(f"{asked.number} {seed} zorp"), *words(asked)))


def always_the_same(asked: Asked, seed: int) -> Image.Image:
    """What a burnt-in LoRA paints: a training picture, whatever the prompt."""
    return zorp.draw(demo_data.trained()[(asked.number + seed) % 2])


def painted(draw: Draw, name: str) -> list[Picture]:
    found = [(asked.number, seed, draw(asked, seed)) for asked in ASKED for seed in SEEDS]
    # A picture's key names its content: what was seen of one picture is not looked at again.
    return [
        Picture(sha256(image.tobytes()).hexdigest(), image, Path(name), prompt, seed) for prompt, seed, image in found
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    place = Workspace(tmp_path_factory.mktemp("workspace"))
    place.models.mkdir()
    (place.models / "pilot-tiny-clip").symlink_to(TEMPLATE / "models" / "pilot-tiny-clip")
    wanted = {"clip": ["pilot-tiny-clip"], "dino": ["facebook/dinov2-small"], "face": []}
    embedders = Embedders(place, wanted, torch.device("cpu"), fetch=False, say=lambda text: None)  # type: ignore[arg-type]
    base = {(one.prompt, one.seed): one for one in painted(scene, "base")}
    dataset = [
        Picture(f"trained {number}", zorp.draw(one), Path(f"zorp_{number:02d}.png"))
        for number, one in enumerate(demo_data.trained())
    ]
    return Bench(ASKED, base, dataset, embedders)


def value(name: str, draw: Draw, bench: Bench) -> Estimate:
    found = estimate(metrics()[name].measure(painted(draw, draw.__name__), bench).readings)
    assert found is not None
    return found


def test_every_metric_says_what_people_have_to_know() -> None:
    assert len(metrics()) >= 12
    for name, metric in metrics().items():
        about = metric.ABOUT
        assert name == about.name and about.better in ("higher", "lower", "neither")
        assert all(len(words) > 3 for words in (about.label, about.says, about.low, about.high, about.model))
        assert len(about.cannot_tell) > 30 and "@@" not in about.cannot_tell


def test_likeness_is_0_for_the_base_and_about_1_for_the_subject(bench: Bench) -> None:
    base, own = value("likeness_clip", scene, bench), value("likeness_clip", character, bench)
    assert base.mean == pytest.approx(0, abs=1e-5)
    assert own.mean > 0.6 and own.low > base.high

    def noise(asked: Asked, seed: int) -> Image.Image:
        rng = np.random.default_rng(100 * asked.number + seed)
        return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))

    def half(asked: Asked, seed: int) -> Image.Image:
        return Image.blend(scene(asked, seed), character(asked, seed), 0.5)

    # Other known shapes in the subject's place are no likeness, and what nobody knows is none either.
    for shape in ("square", "ring", "cross"):
        assert value("likeness_clip", lambda asked, seed, shape=shape: scene(asked, seed, shape), bench).high < own.low
    assert value("likeness_clip", noise, bench).high < 0
    assert 0 < value("likeness_clip", half, bench).mean < own.mean


def test_flexibility_falls_where_prompts_no_longer_steer(bench: Bench) -> None:
    assert value("flexibility", scene, bench).mean == pytest.approx(1, abs=1e-5)
    own, stuck = value("flexibility", character, bench), value("flexibility", always_the_same, bench)
    assert own.mean > 0.6 and stuck.high < own.low and stuck.mean < 0.3


def test_adherence_is_lost_by_the_same_picture_again_and_again(bench: Bench) -> None:
    assert value("adherence_lost", scene, bench).mean == pytest.approx(0, abs=1e-4)
    assert value("adherence_lost", always_the_same, bench).low > value("adherence_lost", character, bench).mean
    assert value("clip_score", scene, bench).mean > value("clip_score", always_the_same, bench).mean


def test_leakage_is_0_where_controls_are_left_alone_and_1_where_they_are_other_pictures(bench: Bench) -> None:
    assert value("leakage", character, bench).mean == pytest.approx(0, abs=1e-5)
    assert value("leakage", lambda asked, seed: scene(asked, seed + 100), bench).mean == pytest.approx(1, abs=0.7)
    assert value("leakage", always_the_same, bench).low > 1


def test_diversity_falls_where_seeds_no_longer_matter(bench: Bench) -> None:
    base = value("diversity", scene, bench)
    assert base.mean == pytest.approx(1) and base.over == "prompts"
    assert value("diversity", lambda asked, seed: scene(asked, 1), bench).mean == pytest.approx(0, abs=1e-5)


def test_planted_copies_are_found_with_their_originals(bench: Bench) -> None:
    """Whatever was done to the copy: scaled, mirrored, brighter, compressed."""
    changes: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: image,
        ImageOps.mirror,
        lambda image: image.resize((96, 96)).resize((64, 64)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    ]
    planted = {(0, 1): 3, (2, 2): 7, (5, 3): 11, (8, 1): 0}
    pictures = []
    for picture in painted(character, "planted"):
        number = planted.get((picture.prompt, picture.seed))
        if number is not None:
            copied = changes[picture.prompt % 4](bench.dataset[number].image)
            picture = Picture(f"copy {number}", copied, picture.file, picture.prompt, picture.seed)
        pictures.append(picture)
    found = memorisation.measure(pictures, bench).findings
    alarming = {(one.picture.prompt, one.picture.seed): one.other.file.name for one in found if one.alarming}
    assert alarming == {place: f"zorp_{number:02d}.png" for place, number in planted.items()}
    assert [one.value for one in found] == sorted((one.value for one in found), reverse=True)


def test_a_dataset_of_look_alikes_asks_for_more_before_it_says_copy() -> None:
    rng = np.random.default_rng(0)
    varied = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(6)]
    first = np.asarray(varied[0]).astype(int)
    alike = [
        Image.fromarray(np.clip(first + rng.integers(-12, 13, first.shape), 0, 255).astype(np.uint8)) for _ in range(6)
    ]

    def limit(images: list[Image.Image]) -> float:
        return copy_limit(thumbnails([one for image in images for one in (image, ImageOps.mirror(image))]))

    assert limit(varied) == memorisation.LEAST
    assert limit(alike) == memorisation.MOST


def test_artefacts_are_seen_where_they_are(bench: Bench) -> None:
    def noisy(asked: Asked, seed: int) -> Image.Image:
        noise = np.random.default_rng(seed).normal(0, 20, (64, 64, 1))
        return Image.fromarray(np.clip(np.asarray(scene(asked, seed)) + noise, 0, 255).astype(np.uint8))

    def burnt(asked: Asked, seed: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (255, 0, 0))

    def tinted(asked: Asked, seed: int) -> Image.Image:
        return Image.fromarray(
            np.clip(np.asarray(scene(asked, seed)).astype(int) + np.array([30, 0, -30]), 0, 255).astype(np.uint8)
        )

    for name, draw in (("noise", noisy), ("saturation", burnt), ("colour_shift", tinted)):
        usual, odd = value(name, scene, bench), value(name, draw, bench)
        assert odd.low > usual.high, name
    assert value("colour_shift", scene, bench).mean == 0
    assert value("noise", noisy, bench).mean > 5


def test_noise_is_measured_in_levels_of_its_own_deviation() -> None:
    from trainpilot.evaluate.metrics.noise import deviation

    rng = np.random.default_rng(0)
    for sigma in (4.0, 12.0):
        grey = 128 + rng.normal(0, sigma, (200, 200))
        pixels = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32) / 255
        assert deviation(pixels) == pytest.approx(sigma, rel=0.05)
    slope = np.repeat(np.add.outer(np.arange(64.0), np.arange(64.0))[:, :, None], 3, axis=2).astype(np.float32) / 255
    assert deviation(slope) == pytest.approx(0, abs=1e-3)


def test_a_model_that_is_not_there_is_told(bench: Bench) -> None:
    for name, missing in (("likeness_dino", "facebook/dinov2-small"), ("likeness_face", "face")):
        with pytest.raises(Missing, match=missing):
            metrics()[name].measure(painted(scene, "base"), bench)


@pytest.mark.parametrize("kind", ["dino", "face"])
def test_a_dino_or_face_model_on_disk_is_used(kind: str, bench: Bench, tmp_path: Path) -> None:
    """A random model sees something: enough to be found and loaded, and to place the two ends where they belong."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path / "models" / "eyes"
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=8)
    Dinov2Model(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    processor = {"image_processor_type": "BitImageProcessor", "size": size, "do_center_crop": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    wanted = {kind: ["nowhere", "eyes"]}
    embedders = Embedders(Workspace(tmp_path), wanted, torch.device("cpu"), fetch=False, say=lambda text: None)  # type: ignore[arg-type]
    likeness = [asked for asked in ASKED if asked.group == "likeness"]
    own = Bench(ASKED, bench.base, bench.dataset[: len(likeness) * len(SEEDS)], embedders)
    assert value(f"likeness_{kind}", scene, own).mean == pytest.approx(0, abs=1e-3)

    def trained(asked: Asked, seed: int) -> Image.Image:
        return own.dataset[(asked.number * len(SEEDS) + seed) % len(own.dataset)].image

    assert value(f"likeness_{kind}", trained, own).mean >= 1 - 1e-3
