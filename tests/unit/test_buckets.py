"""Buckets: sd-scripts' two algorithms on recorded vectors, and the properties every placement has."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpilot.config.schema import Buckets
from trainpilot.datasets.buckets import Rules, bucket_list, kohya_told_crop, place, rules_from
from trainpilot.errors import PilotError

VECTORS = json.loads((Path(__file__).parent / "data" / "bucket_vectors.json").read_text())


def rules_of(vector: dict) -> Rules:
    return Rules(
        tuple(vector["resolution"]), vector["steps"], vector["min"], vector["max"], "kohya", vector["no_upscale"]
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['image']}-{v['resolution'][0]}-{v['steps']}")
def test_kohya_agrees_with_recorded_vectors(vector):
    size = tuple(vector["image"])
    placement = place(size, rules_of(vector))
    assert list(placement.bucket) == vector["bucket"]
    assert list(placement.resized) == vector["resized"]
    bucket = placement.bucket
    assert bucket[0] / bucket[1] - size[0] / size[1] == pytest.approx(vector["ar_error"], abs=1e-12)
    assert kohya_told_crop(size, bucket) == pytest.approx(vector["crop_ltrb"], abs=1e-9)


def test_kohya_has_41_buckets_at_1024():
    assert len(bucket_list(Rules((1024, 1024), 64, 256, 2048, "kohya"))) == 41


SIDES = st.integers(1, 6000)
ANY_RULES = st.builds(
    Rules,
    resolution=st.tuples(st.integers(256, 1536), st.integers(256, 1536)),
    step=st.sampled_from([8, 16, 32, 64]),
    min_side=st.sampled_from([64, 128, 250]),
    max_side=st.sampled_from([1024, 1500, 2048]),
    algorithm=st.sampled_from(["kohya", "native"]),
    no_upscale=st.booleans(),
    enabled=st.booleans(),
)


@given(st.tuples(SIDES, SIDES), ANY_RULES)
@settings(max_examples=400, deadline=None)
def test_every_placement_is_sound(size, rules):
    placement = place(size, rules)
    (width, height), (left, top, right, bottom) = placement.bucket, placement.crop
    assert width % rules.step == 0 and height % rules.step == 0 and min(width, height) >= rules.step
    assert (right - left, bottom - top) == (width, height)
    assert min(left, top) >= 0 and right <= placement.resized[0] and bottom <= placement.resized[1]
    if not (rules.algorithm == "kohya" and rules.no_upscale):  # sd-scripts exceeds the area for very long images
        assert width * height <= rules.resolution[0] * rules.resolution[1]
    assert 0 <= placement.cropped_share < 1
    # One side is scaled exactly (to the pixel): the crop never removes from both sides more than rounding.
    if not (rules.algorithm == "kohya" and rules.no_upscale):
        assert placement.resized[0] - width <= 1 or placement.resized[1] - height <= 1
    if rules.no_upscale and rules.enabled and min(size) >= rules.step:
        assert placement.resized[0] <= size[0] + 1 and placement.resized[1] <= size[1] + 1
    if rules.algorithm == "native" and rules.enabled and not rules.no_upscale:
        assert rules.min_side <= min(width, height) and max(width, height) <= rules.max_side


@given(st.tuples(st.integers(16, 4000), st.integers(16, 4000)), st.sampled_from([512, 768, 1024]))
@settings(max_examples=200, deadline=None)
def test_native_never_crops_more_than_any_full_bucket(size, side):
    """An independent search over all multiples of 64 with a side that cannot be extended by one step."""
    rules = Rules((side, side), 64, 256, 2048, "native")
    sides = range(256, 2049, 64)
    full = [
        (w, h)
        for w in sides
        for h in sides
        if w * h <= side * side and ((w + 64) * h > side * side or w * (h + 64) > side * side)
    ]
    aspect = size[0] / size[1]

    def cropped(bucket):  # the share of the image outside a window of the bucket's shape
        ratio = bucket[0] / bucket[1] / aspect
        return 1 - min(ratio, 1 / ratio)

    assert cropped(place(size, rules).bucket) <= min(map(cropped, full)) + 1e-9


def test_native_crops_no_more_than_kohya_on_the_vectors():
    for vector in VECTORS:
        if vector["no_upscale"]:
            continue
        kohya = rules_of(vector)
        native = Rules(kohya.resolution, kohya.step, kohya.min_side, kohya.max_side, "native")
        size = tuple(vector["image"])
        # half a pixel of rounding on the longer side is not a worse choice
        assert place(size, native).cropped_share <= place(size, kohya).cropped_share + 1 / min(kohya.resolution)


def test_a_limited_side_still_leaves_room_for_other_shapes():
    """Resolution 1024 with sides of 384 to 1024 must not press a tall image into a square."""
    assert place((500, 1000), Rules((1024, 1024), 64, 384, 1024)).bucket == (512, 1024)


def test_without_upscaling_a_small_image_keeps_its_size():
    for algorithm in ("kohya", "native"):
        rules = Rules((512, 512), 64, 256, 2048, algorithm, no_upscale=True)
        assert place((300, 200), rules).bucket == (256, 192)
        assert place((256, 192), rules).resized == (256, 192)


def test_an_image_narrower_than_a_step_is_enlarged_to_one():
    for algorithm in ("kohya", "native"):
        placement = place((10, 500), Rules((512, 512), 64, 256, 2048, algorithm, no_upscale=True))
        assert placement.bucket[0] == 64


def test_without_buckets_all_images_take_one_size():
    rules = Rules((512, 384), enabled=False)
    assert {place(size, rules).bucket for size in [(100, 100), (3000, 200), (200, 3000)]} == {(512, 384)}


def test_a_dataset_may_have_its_own_resolution():
    settings_ = Buckets(resolution=512, step=64)
    assert rules_from(settings_).resolution == (512, 512)
    assert rules_from(settings_, (768, 512)).resolution == (768, 512)


@pytest.mark.parametrize(
    ("buckets", "where"),
    [
        (Buckets(resolution=512), "buckets.step"),
        (Buckets(step=64), "buckets.resolution"),
        (Buckets(resolution=512, step=64, min_side=1024, max_side=512), "buckets.min_side"),
        (Buckets(resolution=32, step=64), "buckets.resolution"),
        (Buckets(resolution=256, step=64, min_side=512), "buckets.min_side"),
    ],
)
def test_contradictory_settings_are_refused_by_name(buckets, where):
    with pytest.raises(PilotError) as caught:
        rules_from(buckets)
    assert caught.value.where == where
