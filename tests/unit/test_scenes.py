"""The world of pilot-tiny: drawn as its captions say, the same every time, and read back by the pixel measure."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from scripts.pilot_tiny import demo_data, measure, scenes, zorp

DEMO = Path(__file__).parents[2] / "workspace-template" / "datasets" / "images" / "10_zorp"


def several(count: int, two_shapes: float = 0.12) -> list[scenes.Scene]:
    random = Random("test scenes")
    return [scenes.random_scene(random, two_shapes) for _ in range(count)]


def test_a_scene_is_a_function_of_its_seed() -> None:
    for seed in range(20):
        one, same = (scenes.random_scene(Random(seed)) for _ in range(2))
        assert one == same
        assert scenes.draw(one).tobytes() == scenes.draw(same).tobytes()
    assert len(set(several(200))) == 200


def test_the_pixel_measure_reads_real_drawings() -> None:
    """The measure is only worth something if it is right where the truth is known: at least 99% of each attribute."""
    wanted = measure.measured_scenes(1000, seed="test of the measure")
    found = measure.accuracy([scenes.draw(scene) for scene in wanted], wanted)
    assert {name: share for name, share in found.items() if share < 0.99} == {}


def test_the_pixel_measure_sees_what_is_wrong() -> None:
    """Shown another scene, it agrees about as often as chance has it: never more than one attribute in four."""
    wanted = measure.measured_scenes(400)
    pictures = [scenes.draw(scene) for scene in measure.measured_scenes(400, seed="others")]
    assert measure.accuracy(pictures, wanted)["all"] < 0.25


def test_an_empty_picture_shows_nothing() -> None:
    seen = measure.look(Image.new("RGB", (64, 64), scenes.BACKGROUNDS["blue"]))
    assert (seen.shape, seen.colour, seen.position, seen.background) == (None, None, None, "blue")


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_shapes_have_their_colour_place_and_ground(shape: str) -> None:
    part = scenes.place(Random(1), shape, "red", "medium", "top left")
    pixels = np.asarray(scenes.draw(scenes.Scene((part,), "white"))).astype(int)
    red = np.abs(pixels - scenes.PALETTE["red"]).sum(axis=2) < 10
    white = np.abs(pixels - scenes.BACKGROUNDS["white"]).sum(axis=2) < 10
    # Anti-aliased edges are neither; the top left quarter of 32x32 pixels holds all of the shape.
    assert red.sum() > 80
    assert (red | white).mean() > 0.94
    assert not red[34:].any()
    assert not red[:, 34:].any()


def test_captions_name_what_is_there() -> None:
    random = Random("captions")
    for scene in several(300, two_shapes=0.0):
        part = scene.parts[0]
        words = scenes.full_caption(scene).replace("-", " ").split()
        for value in (part.shape, part.colour, part.size, scene.background, *part.position.split()):
            assert value in words
        said = scenes.caption(scene, random, empty=0.0)
        # Nothing that is not so: other colours, sizes and shapes never occur in the words.
        others = (
            (set(scenes.BACKGROUNDS) - {part.colour, scene.background})
            | (set(scenes.SIZES) - {part.size})
            | (set(scenes.SHAPES) - {part.shape})
        )
        assert not others & set(said.replace(",", "").split()), said


def test_captions_vary_and_a_tenth_is_empty() -> None:
    random = Random("shares")
    texts = [scenes.caption(scene, random) for scene in several(3000)]
    # Binomial, 3000 draws at 0.1: four standard deviations are 0.022.
    assert abs(sum(not text for text in texts) / 3000 - 0.1) < 0.022
    one = several(1, two_shapes=0.0)[0]
    assert len({scenes.caption(one, random) for _ in range(300)}) > 60


def test_every_value_of_every_attribute_occurs() -> None:
    parts = [part for scene in several(2000) for part in scene.parts]
    assert {part.shape for part in parts} == set(scenes.SHAPES)
    assert {part.colour for part in parts} == set(scenes.PALETTE)
    assert {part.position for part in parts} == set(scenes.POSITIONS)
    assert {part.size for part in parts} == set(scenes.SIZES)
    assert {scene.background for scene in several(500)} == set(scenes.BACKGROUNDS)
    assert all(part.colour != scene.background for scene in several(2000) for part in scene.parts)


def test_the_shipped_demo_dataset_is_what_the_script_draws() -> None:
    drawn = demo_data.trained()
    assert len(drawn) == 16
    assert len(list(DEMO.glob("*.png"))) == 16
    for number, one in enumerate(drawn, start=1):
        with Image.open(DEMO / f"zorp_{number:02d}.png") as picture:
            assert picture.convert("RGB").tobytes() == zorp.draw(one).tobytes()
        text = (DEMO / f"zorp_{number:02d}.txt").read_text(encoding="utf-8").strip()
        assert text == zorp.caption(one)
        assert text.startswith("zorp, ")
        assert one.colour in text
        assert one.background in text
    for values in (Counter(one.colour for one in drawn), Counter(one.background for one in drawn)):
        assert len(values) >= 7


def test_held_out_zorps_are_other_zorps() -> None:
    trained = {(one.colour, one.size, one.position, one.background) for one in demo_data.trained()}
    held_out = demo_data.held_out(40)
    assert demo_data.held_out(10) == held_out[:10]
    assert not trained & {(one.colour, one.size, one.position, one.background) for one in held_out}


def test_a_zorp_is_never_cut_by_the_edge() -> None:
    """No pixel of the outermost rows and columns is wholly covered by it: at most an edge touches them."""
    for one in demo_data.held_out(200):
        pixels = np.asarray(zorp.draw(one)).astype(int)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        ground = np.array(scenes.BACKGROUNDS[one.background])
        for colour in (zorp.LIGHT, zorp.DARK, scenes.PALETTE[one.colour]):
            share = np.abs(edge - ground).sum(axis=1) / np.abs(np.array(colour) - ground).sum()
            if (np.abs(np.array(colour) - ground)).sum() > 100:
                assert not ((np.abs(edge - colour).sum(axis=1) < 12) & (share > 0.9)).any(), one
