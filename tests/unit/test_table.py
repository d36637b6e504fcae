"""The table: one scan of real files, placed, captioned and dealt out; broken files named; pictures as trained."""

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainpilot.config.schema import RunConfig
from trainpilot.datasets import hashes, images, table
from trainpilot.datasets.images import open_rgb, prepare, prepare_mask, resize
from trainpilot.datasets.table import Sample, Table, build
from trainpilot.errors import PilotError, Problems
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("PILOT_CACHE", raising=False)
    return Workspace(tmp_path / "workspace")


def paint(path: Path, size=(96, 64), seed=0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def settings_of(*datasets, **buckets) -> RunConfig:
    return RunConfig(
        datasets=[{"path": str(one)} if isinstance(one, Path) else one for one in datasets],
        buckets={"resolution": 64, "step": 16, "min_side": 32, "max_side": 256} | buckets,
    )


def dealt(counts: list[int], repeats: int = 1) -> Table:
    """A table of that many pictures in as many buckets, without files."""
    samples = []
    for number, count in enumerate(counts):
        size = (64 * (number + 1), 64)
        samples += [
            Sample(0, Path(f"{number}-{i}.png"), size, size, size, (0, 0), 0, repeats, "") for i in range(count)
        ]
    return Table(samples)


def test_the_plans_example_of_63_pictures():
    assert dealt([63]).batches_per_epoch(4) * 25 == 400  # 16 batches an epoch
    assert dealt([5, 5, 5, 5, 21, 22]).batches_per_epoch(4) * 25 == 500  # 2 + 2 + 2 + 2 + 6 + 6


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 7), st.integers(0, 5),
    st.integers(0, 2**40),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_batches_hold_every_picture_repeats_times(counts, repeats, batch_size, epoch, seed):
    whole = dealt(counts, repeats)
    batches = whole.batches(epoch, seed, batch_size)
    assert batches == dealt(counts, repeats).batches(epoch, seed, batch_size)
    seen = Counter(index for batch in batches for index in batch)
    assert seen == dict.fromkeys(range(sum(counts)), repeats)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert all(len({whole.samples[i].bucket for i in batch}) == 1 for batch in batches)
    assert (
        len(batches)
        == whole.batches_per_epoch(batch_size)
        == sum(-(-count * repeats // batch_size) for count in counts)
    )


def test_order_differs_by_epoch_and_by_seed():
    whole = dealt([40])
    orders = {str(whole.batches(epoch, seed, 4)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9


def test_a_scan_places_captions_and_counts(tmp_path, workspace):
    root = workspace.datasets / "images" / "3_zorp"
    paint(root / "a.png", (96, 64), 1)
    paint(root / "b.jpg", (64, 96), 2)
    (root / "a.txt").write_text("a red zorp\nsecond line")
    found = build(settings_of({"path": "3_zorp"}), workspace)
    a, b = found.samples
    assert (a.index, a.size, a.caption, a.repeats) == (0, (96, 64), "a red zorp\nsecond line", 3)
    assert (b.index, b.size, b.caption) == (1, (64, 96), "zorp")
    # 1.5 : 1 in multiples of 16 within 64 * 64: 80x48 (1.67) crops 10%, 64x64 33%, 96x32 50%
    assert a.bucket == (80, 48) and a.resized == (80, 53) and a.crop == (0, 2)
    assert found.buckets == {(48, 80): [1], (80, 48): [0]}
    assert found.images_per_epoch == 6 and found.batches_per_epoch(2) == 4
    assert any("1 pictures without a caption take 'zorp'" in note for note in found.notes)


def test_each_dataset_has_its_own_resolution_and_default_caption(tmp_path, workspace):
    one, two = tmp_path / "one", tmp_path / "two"
    paint(one / "a.png", (200, 200))
    paint(two / "b.png", (200, 200))
    config = settings_of(one, {"path": str(two), "resolution": 128, "default_caption": "a thing", "repeats": 4})
    found = build(config, workspace)
    assert [(s.bucket, s.dataset, s.caption, s.repeats) for s in found.samples] == [
        ((64, 64), 0, "", 1),
        ((128, 128), 1, "a thing", 4),
    ]


def test_kohya_and_fixed_size(tmp_path, workspace):
    paint(tmp_path / "d" / "a.png", (96, 64))
    kohya = build(settings_of(tmp_path / "d", algorithm="kohya"), workspace).samples[0]
    assert kohya.told_crop is not None
    single = build(settings_of(tmp_path / "d", enabled=False, resolution=[70, 50]), workspace)
    assert single.samples[0].bucket == (64, 48)
    assert any("rounded down to 64x48" in note for note in single.notes)


def regular(tmp_path, workspace, train: int, repeats: int, prior: int, prior_repeats: int) -> list[Sample]:
    for number in range(train):
        paint(tmp_path / "t" / f"{number}.png", (32, 32))
    for number in range(prior):
        paint(tmp_path / "r" / f"{number}.png", (32, 32))
    config = settings_of(
        {"path": str(tmp_path / "t"), "repeats": repeats},
        {"path": str(tmp_path / "r"), "repeats": prior_repeats, "regularization": True},
    )
    return [sample for sample in build(config, workspace).samples if sample.regularization]


@pytest.mark.parametrize(
    ("train", "repeats", "prior", "prior_repeats", "expected"),
    [
        (2, 5, 3, 1, [4, 3, 3]),  # 10 wanted: one round of 3, then 7 more one by one
        (3, 1, 5, 1, [1, 1, 1]),  # the rest is not needed
        (2, 2, 2, 3, [3, 3]),  # 4 wanted: the second picture brings all its repeats
        (4, 2, 2, 3, [4, 4]),  # 8 wanted: 6, then one each
    ],
)
def test_regularisation_pictures_match_the_training_count(
    tmp_path, workspace, train, repeats, prior, prior_repeats, expected
):
    assert [one.repeats for one in regular(tmp_path, workspace, train, repeats, prior, prior_repeats)] == expected


def test_only_regularisation_pictures_are_refused(tmp_path, workspace):
    paint(tmp_path / "r" / "a.png")
    with pytest.raises(PilotError, match="at least one dataset to learn from"):
        build(settings_of({"path": str(tmp_path / "r"), "regularization": True}), workspace)


def broken_dataset(root: Path) -> Path:
    paint(root / "good.png")
    whole = paint(root / "cut.jpg", (300, 300)).read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    whole = paint(root / "cut.png", (300, 300)).read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "empty.webp").touch()
    (root / "text.jpg").write_text("no picture")
    (root / "good.txt").write_bytes("Größe".encode("cp1252"))
    return root


def test_broken_files_are_named_and_skipped(tmp_path, workspace):
    found = build(settings_of(broken_dataset(tmp_path / "d")), workspace)
    assert [(one.image.name, one.caption) for one in found.samples] == [("good.png", "Größe")]
    for name in ("cut.jpg", "cut.png", "empty.webp", "text.jpg"):
        assert any(name in note and note.endswith(": skipped") for note in found.notes), found.notes
    assert any("good.txt" in note and "Windows-1252" in note for note in found.notes)


def test_strict_refuses_them_all_at_once(tmp_path, workspace):
    root = broken_dataset(tmp_path / "d")
    with pytest.raises(Problems) as caught:
        build(settings_of({"path": str(root), "strict": True}), workspace)
    names = {Path(problem.where).name for problem in caught.value.problems}
    assert names == {"cut.jpg", "cut.png", "empty.webp", "text.jpg", "good.txt"}


def test_nothing_readable_and_missing_folders_are_refused(tmp_path, workspace):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_text("x")
    with pytest.raises(PilotError, match="no readable picture"):
        build(settings_of(tmp_path / "d"), workspace)
    with pytest.raises(Problems) as caught:
        build(settings_of(tmp_path / "no", tmp_path / "nor"), workspace)
    assert len(caught.value.problems) == 2
    with pytest.raises(PilotError, match="at least one folder"):
        build(settings_of(), workspace)


def test_an_image_bomb_is_skipped_without_decoding(tmp_path, workspace, monkeypatch):
    paint(tmp_path / "d" / "a.png", (40, 40))
    paint(tmp_path / "d" / "b.png", (60, 60))
    monkeypatch.setattr(images, "MAX_PIXELS", 50 * 50)
    found = build(settings_of(tmp_path / "d"), workspace)
    assert [one.image.name for one in found.samples] == ["a.png"]
    assert any("60x60 px" in note for note in found.notes)


def test_a_second_scan_reads_no_picture_again(tmp_path, workspace, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)
    read: list[str] = []
    real = table.inspect
    monkeypatch.setattr(table, "inspect", lambda path: (read.append(path.name), real(path))[1])
    for number in range(5):
        paint(tmp_path / "d" / f"{number}.png", seed=number)
    config = settings_of(tmp_path / "d")
    first = build(config, workspace)
    assert sorted(read) == [f"{number}.png" for number in range(5)]
    second = build(config, workspace)
    assert len(read) == 5 and second.samples == first.samples
    paint(tmp_path / "d" / "3.png", (64, 64), seed=9)
    third = build(config, workspace)
    assert read[5:] == ["3.png"]
    assert [a == b for a, b in zip(first.samples, third.samples, strict=True)] == [True, True, True, False, True]


def test_the_fingerprint_follows_content_and_not_place(tmp_path, workspace):
    def fingerprint(root: Path) -> str:
        return build(settings_of(root), workspace).fingerprint()

    paint(tmp_path / "d" / "a.png")
    (tmp_path / "d" / "a.txt").write_text("one")
    first = fingerprint(tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first
    (tmp_path / "moved" / "a.txt").write_text("two")
    second = fingerprint(tmp_path / "moved")
    paint(tmp_path / "moved" / "a.png", seed=1)
    assert len({first, second, fingerprint(tmp_path / "moved")}) == 3


def test_a_scan_can_be_stopped(tmp_path, workspace):
    for number in range(6):
        paint(tmp_path / "d" / f"{number}.png")
    told = []

    def progress(done, of):
        told.append((done, of))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(settings_of(tmp_path / "d"), workspace, progress=progress)
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6)]


def test_a_stopped_scan_does_not_finish_its_work(tmp_path, workspace, monkeypatch):
    for number in range(60):
        paint(tmp_path / "d" / f"{number}.png", (32, 32))
    read = []
    real = table.inspect

    def slow(path):
        read.append(path)
        time.sleep(0.05)
        return real(path)

    def progress(done, of):
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(table, "inspect", slow)
    with pytest.raises(KeyboardInterrupt):
        build(settings_of(tmp_path / "d"), workspace, progress=progress)
    assert len(read) <= 1 + 3 * table.MAX_THREADS < 60


def test_exif_rotation_is_seen_by_the_scan_and_by_the_engine(tmp_path, workspace):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "b.png", "c.webp"):
        paint(tmp_path / "d" / name, (96, 64), exif=exif)
    for sample in build(settings_of(tmp_path / "d"), workspace).samples:
        assert sample.size == (64, 96) == open_rgb(sample.image).size, sample.image
        assert prepare(sample).shape == (sample.bucket[1], sample.bucket[0], 3)


def test_unusual_pictures_are_opened_and_said(tmp_path, workspace):
    root = tmp_path / "d"
    root.mkdir()
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(root / "cmyk.jpg", quality=95)
    Image.fromarray(np.full((32, 32), 12352, np.uint16)).save(root / "deep.png")
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.save(root / "clear.png")
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(root / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    Image.new("P", (32, 32)).save(root / "palette.png", transparency=0)
    Image.new("1", (32, 32), 1).save(root / "bits.bmp")
    found = build(settings_of(root), workspace)
    colour = {one.image.name: prepare(one)[5, 5].tolist() for one in found.samples}
    assert np.abs(np.array(colour["cmyk.jpg"]) - [255, 0, 0]).max() < 12
    assert colour["deep.png"] == [48, 48, 48]  # 12352 / 257 = 48.06; 65535 / 257 = 255
    assert colour["clear.png"] == colour["palette.png"] == colour["bits.bmp"] == [255, 255, 255]
    assert colour["moving.webp"] == [255, 0, 0]
    notes = "\n".join(found.notes)
    for name, said in (("cmyk.jpg", "CMYK"), ("deep.png", "16 bits"), ("moving.webp", "animated")):
        assert any(name in note and said in note for note in found.notes), notes
    assert any("clear.png" in note and "transparent" in note for note in found.notes), notes


def area_matrix(length: int, count: int) -> np.ndarray:
    """Row i holds the share of each source pixel in the interval [i, i + 1) * length / count."""
    edges = np.arange(count + 1) * length / count
    left, right = np.arange(length), np.arange(length) + 1
    overlap = np.minimum(right, edges[1:, None]) - np.maximum(left, edges[:-1, None])
    return np.clip(overlap, 0, None) * count / length


@given(st.integers(2, 60), st.integers(2, 60), st.data())
@settings(max_examples=80, deadline=None)
def test_shrinking_takes_exact_area_means(width, height, data):
    size = (data.draw(st.integers(1, width - 1)), data.draw(st.integers(1, height - 1)))
    pixels = np.random.default_rng(width * 61 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    exact = np.einsum("ij,jkc,lk->ilc", area_matrix(height, size[1]), pixels.astype(float), area_matrix(width, size[0]))
    assert np.abs(resize(pixels, size) - exact).max() <= 0.501  # rounding to whole numbers


def test_growing_uses_lanczos():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((45, 30), Image.Resampling.LANCZOS))
    assert (resize(pixels, (45, 30)) == expected).all()


def test_crop_flip_and_mask_share_one_frame(tmp_path, workspace):
    root, masks = tmp_path / "d", tmp_path / "masks"
    grey = np.random.default_rng(3).integers(0, 256, (64, 112), dtype=np.uint8)
    for folder in (root, masks):
        folder.mkdir()
        Image.fromarray(grey).convert("RGB").save(folder / "a.png")
    config = settings_of({"path": str(root), "masks": str(masks)}, enabled=False)
    sample = build(config, workspace).samples[0]
    assert sample.bucket == (64, 64) and sample.resized == (112, 64) and sample.crop == (24, 0)
    assert (prepare(sample)[..., 0] == grey[:, 24:88]).all()
    assert (prepare(sample, (10, 0), flip=True)[..., 1] == grey[:, 10:74][:, ::-1]).all()
    assert (prepare_mask(sample, (10, 0), flip=True) == grey[:, 10:74][:, ::-1]).all()
    with pytest.raises(ValueError, match="leaves the picture"):
        prepare(sample, (49, 0))
    assert sample.crop_room == (48, 0)


def test_a_picture_exchanged_while_running_is_named(tmp_path, workspace):
    path = paint(tmp_path / "d" / "a.png", (96, 64))
    sample = build(settings_of(tmp_path / "d"), workspace).samples[0]
    paint(path, (64, 96))
    with pytest.raises(PilotError, match="when the run was planned"):
        prepare(sample)
    path.write_bytes(b"")
    with pytest.raises(PilotError) as caught:
        prepare(sample)
    assert caught.value.where == str(path)


def test_sdxl_is_told_the_sizes():
    """Original, crop and target as (height, width); the crop counted in the mirrored picture when flipped."""
    sample = Sample(0, Path("a.png"), (1500, 1000), (1216, 832), (1248, 832), (16, 0), 0, 1, "")
    assert sample.size_conditioning() == ((1000, 1500), (0, 16), (832, 1216))
    assert sample.size_conditioning((5, 0)) == ((1000, 1500), (0, 5), (832, 1216))
    assert sample.size_conditioning((5, 0), flip=True) == ((1000, 1500), (0, 27), (832, 1216))  # 1248 - 1216 - 5
    # sd-scripts' figure: the picture fitted inside the bucket; mirrored, what is left on its other side
    told = Sample(0, Path("a.png"), (768, 512), (640, 384), (640, 427), (0, 21), 0, 1, "", told_crop=(32, 0, 608, 384))
    assert told.size_conditioning((3, 2)) == ((512, 768), (0, 32), (384, 640))
    assert told.size_conditioning((3, 2), flip=True) == ((512, 768), (0, 640 - 608), (384, 640))


def test_dropping_every_caption_is_said_loudly(tmp_path, workspace):
    paint(tmp_path / "d" / "a.png")
    config = settings_of({"path": str(tmp_path / "d"), "captions": {"dropout_every_n_epochs": 1}})
    assert any("every caption of every epoch" in note for note in build(config, workspace).notes)


def test_metadata_captions_reach_the_samples(tmp_path, workspace):
    paint(tmp_path / "d" / "images" / "a.png")
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps({"file_name": "images/a.png", "text": " a zorp "}))
    assert build(settings_of(tmp_path / "d"), workspace).samples[0].caption == "a zorp"


def test_an_unreadable_cache_folder_only_costs_time(tmp_path, workspace):
    paint(tmp_path / "d" / "a.png")
    workspace.root.mkdir()
    (workspace.root / "cache").write_text("a file in the way")
    found = build(settings_of(tmp_path / "d"), workspace)
    assert len(found.samples) == 1 and any("files are read anew" in note for note in found.notes)


def test_a_file_without_permission_is_skipped(tmp_path, workspace):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    paint(tmp_path / "d" / "a.png")
    paint(tmp_path / "d" / "b.png").chmod(0)
    found = build(settings_of(tmp_path / "d"), workspace)
    assert len(found.samples) == 1 and any("b.png Permission denied" in note for note in found.notes)
