"""Copies among pictures: found through every alteration, told apart from what is merely alike, exactly searched."""

import io

import numpy as np
import pytest
from bad_pictures import scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from trainpilot.datasets import duplicates
from trainpilot.datasets.doctor.measures import small_picture
from trainpilot.datasets.duplicates import Pair, find, groups


def recompressed(image: Image.Image) -> Image.Image:
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=20)
    return Image.open(kept)


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * 0.05), round(height * 0.05), round(width * 0.95), round(height * 0.95)))


ALTERED = {
    "crop": cropped,
    "crop at a corner": lambda image: image.crop((0, 0, round(image.width * 0.93), round(image.height * 0.95))),
    "resize": lambda image: image.resize((100, 130)),
    "recompress": recompressed,
    "mirror": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "mirror, crop, darker": lambda image: ImageEnhance.Brightness(cropped(ImageOps.mirror(image))).enhance(0.8),
}


def smalls(images) -> np.ndarray:
    return np.stack([small_picture(image.convert("RGB")) for image in images])


@pytest.mark.parametrize("kind", ALTERED)
def test_a_copy_is_found_and_nothing_else(kind):
    originals = [scene(seed, (256, 320)) for seed in range(12)]
    copies = [ALTERED[kind](image) for image in originals]
    found = find(smalls(originals + copies))
    assert [(pair.first, pair.second) for pair in found] == [(number, number + 12) for number in range(12)]
    assert all(pair.mirrored == ("mirror" in kind) for pair in found)


def test_the_same_place_with_the_thing_moved_is_no_copy():
    ground = scene(3)
    images = []
    for number in range(6):
        image = ground.copy()
        ImageDraw.Draw(image).regular_polygon((60 + 28 * number, 128, 36), 5, 15 * number, fill=(240, 40, 40))
        images.append(image)
    assert find(smalls(images)) == []


def test_another_colour_is_no_copy():
    image = scene(4)
    red, green, blue = image.split()
    assert find(smalls([image, Image.merge("RGB", (blue, red, green))])) == []


def test_plain_pictures_are_no_copies():
    assert find(smalls([Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "white", "white")])) == []


def test_a_mirrored_hash_is_the_hash_of_the_mirrored_picture():
    pictures = smalls([scene(seed) for seed in range(8)])
    coefficients = duplicates._coefficients(duplicates._grey(pictures))
    mirrored = duplicates.hashes(pictures[:, :, ::-1])
    apart = np.bitwise_count(duplicates._packed(coefficients * duplicates._MIRROR) ^ mirrored)
    assert apart.max() <= 1  # a coefficient of nearly 0 may change its sign


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(0, 2**32), st.sampled_from([7, 16, 1024]))
def test_the_search_for_close_hashes_is_exact(count, seed, rows):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
    near = rng.integers(0, count, count // 2)
    hashes[near] = hashes[0] ^ (np.uint64(1) << rng.integers(0, 20, len(near)).astype(np.uint64))
    expected = {
        (i, j)
        for i in range(count)
        for j in range(i + 1, count)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= duplicates.MOST_BITS
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_ROWS", rows)
        patch.setattr(duplicates, "_COLUMNS", 3 * rows)
        found = {tuple(pair) for pair in duplicates._close(hashes, hashes, True, None).tolist()}
    assert found == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(21, 40)), max_size=20))
def test_groups_are_what_pairs_connect(pairs):
    found = groups([Pair(first, second, 1.0) for first, second in pairs])
    members = [index for group in found for index in group]
    assert sorted(members) == sorted({index for pair in pairs for index in pair})
    place = {index: number for number, group in enumerate(found) for index in group}
    assert all(place[first] == place[second] for first, second in pairs)
    assert all(group == sorted(group) and len(group) > 1 for group in found)


def test_likeness_undoes_scale_and_shift():
    image = scene(9)
    pairs = smalls([image]), smalls([image.crop((16, 6, 250, 246))])
    straight = np.corrcoef(pairs[0].ravel(), pairs[1].ravel())[0, 1]
    assert duplicates.likeness(*pairs)[0] > 0.96 > straight


def test_a_stop_ends_the_search():
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        find(smalls([scene(1), scene(2)]), stop)
