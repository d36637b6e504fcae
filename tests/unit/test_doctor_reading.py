"""Reading pictures for the doctor: what is measured, that nothing raises or hangs, and how much memory it takes."""

import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
from bad_pictures import BAD, SIDE, jpeg, saved, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from trainpilot.datasets.doctor import measures, reading
from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.doctor.reading import FAULTS, read, read_all
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.images import inspect

CORPUS_LIMIT = 1 << 30  # bytes of memory that reading the decoders' own test files may take


def detail(image: Image.Image) -> float:
    return measures.detail(np.asarray(image.convert("L")))


@pytest.mark.parametrize("seed", range(4))
def test_detail_falls_with_enlarging_and_blurring(seed):
    sharp = scene(seed, (512, 384))
    small = sharp.resize((256, 192), Image.Resampling.LANCZOS)
    twice = small.resize(sharp.size, Image.Resampling.BICUBIC)
    fourfold = sharp.resize((128, 96), Image.Resampling.LANCZOS).resize(sharp.size, Image.Resampling.BICUBIC)
    assert detail(sharp) > 0.85
    assert 0.35 < detail(twice) < 0.7
    assert detail(fourfold) < 0.35
    blurs = [detail(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert blurs == sorted(blurs, reverse=True) and blurs[3] < blurs[0] / 3


def test_a_soft_background_is_no_blur():
    sharp = scene(5, (512, 512))
    portrait = sharp.filter(ImageFilter.GaussianBlur(6))
    portrait.paste(sharp.crop((128, 128, 384, 384)), (128, 128))
    assert detail(portrait) > 0.8


def test_what_cannot_be_told_is_not_held_against_a_picture():
    assert detail(Image.new("RGB", (300, 300), "teal")) == 1.0
    assert detail(scene(6, (24, 24))) == 1.0


@pytest.mark.parametrize("side", range(4))
def test_a_bar_is_measured_on_each_side(side):
    image = scene(7).copy()
    box = [(0, 0, 20, SIDE), (0, 0, SIDE, 20), (SIDE - 20, 0, SIDE, SIDE), (0, SIDE - 20, SIDE, SIDE)][side]
    image.paste((255, 255, 255), box)
    found = measures.borders(np.asarray(image))
    assert found[side] == 20 and sum(found) == 20


def test_a_thing_on_a_plain_ground_has_no_border():
    image = Image.new("RGB", (200, 200), "white")
    image.paste(scene(8).resize((80, 80)), (60, 60))
    assert measures.borders(np.asarray(image)) == (0, 0, 0, 0)


def test_tones_are_percentiles():
    grey = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    expected = [int(np.percentile(grey, share, method="inverted_cdf")) for share in measures.PERCENTILES]
    assert list(measures.tones(grey)) == expected


def test_facts_survive_being_remembered(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(scene(9)))
    facts = read(path)
    assert facts.fault == "" and facts.size == (SIDE, SIDE) and facts.picture.shape == (32, 32, 3)
    assert Facts.from_text(facts.to_text()) == facts


def test_a_second_reading_reads_no_file(tmp_path, monkeypatch):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(jpeg(scene(number, (64, 64))))
    old = time.time() - 60
    for path in paths:
        import os

        os.utime(path, (old, old))
    monkeypatch.setattr("trainpilot.datasets.hashes.SETTLED_NS", -(10**12))
    with Memo.of(tmp_path / "cache") as memo:
        first = read_all(paths, memo)
        monkeypatch.setattr(reading, "read", lambda *_: pytest.fail("read again"))
        assert read_all(paths, memo) == first


def test_every_kind_of_bad_file_gets_a_fault_in_words(tmp_path):
    broken = {name: content for name, (content, check) in BAD.items() if check == "damaged"}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    found = {name: read(tmp_path / name) for name in broken}
    assert {name: facts.fault for name, facts in found.items()} == {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "cut.webp": "truncated",
        "empty.png": "empty",
        "words.jpg": "unknown",
        "page.webp": "unknown",
        "bomb.png": "bomb",
    }
    assert all(facts.problem and "\n" not in facts.problem for facts in found.values())
    assert read(tmp_path / "missing.png").fault == "unreadable"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.data())
def test_no_damage_raises(tmp_path_factory, kind, data):
    """Cut anywhere and with any bytes changed, a file is read or has a fault, as the trainer's own scan says."""
    content = bytearray(saved(scene(1, (48, 40)), kind))
    cut = data.draw(st.integers(1, len(content)))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "picture"
    path.write_bytes(bytes(content[:cut]))
    facts = read(path)
    assert facts.fault in ("", *FAULTS)
    assert bool(facts.fault) >= bool(inspect(path).problem)
    if not facts.fault:
        assert facts.size == inspect(path).size


def test_pixels_in_memory_are_limited():
    room = reading._Room(100)
    at_once, most = 0, 0

    def work(pixels: int) -> None:
        nonlocal at_once, most
        with room.taken(pixels):
            at_once += pixels
            most = max(most, at_once)
            time.sleep(0.002)
            at_once -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 40, 90, 10, 60, 250, 20] * 5))
    assert most <= 250  # the one that is larger than the room is alone in it


@pytest.fixture(scope="session")
def decoders_files(tmp_path_factory) -> Path:
    """The odd files of Pillow's own tests, out of its source distribution."""
    folder = tmp_path_factory.mktemp("pillow")
    command = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps",
               "-q", "--timeout", "10", "--retries", "0", f"pillow=={PIL.__version__}", "-d", str(folder)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    archives = list(folder.glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"Pillow's source distribution cannot be fetched here: {done.stderr.strip()[-200:]}")
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            if "/Tests/images/" in member.name and member.isfile():
                member.name = f"{len(list(folder.iterdir())):05d}-{Path(member.name).name}"
                archive.extract(member, folder, filter="data")
    archives[0].unlink()
    return folder


@pytest.mark.slow
def test_the_odd_files_of_pillows_own_tests(decoders_files, tmp_path):
    """No crash, no hang, each classified, memory bounded: in a process of its own, whose peak is known."""
    code = """
import resource, sys, time
from pathlib import Path
from trainpilot.datasets.doctor.reading import FAULTS, read_all
from trainpilot.datasets.hashes import Memo
paths = sorted(Path(sys.argv[1]).iterdir())
begun = time.monotonic()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_all(paths, Memo.of(Path(sys.argv[2])))
assert len(found) == len(paths) > 500
assert all(one.fault in ("", *FAULTS) and bool(one.fault) == bool(one.problem) for one in found)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(len(found), sum(not one.fault for one in found), peak * 1024, round(time.monotonic() - begun, 1))
"""
    command = [sys.executable, "-X", "faulthandler", "-c", code, str(decoders_files), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    files, readable, peak, seconds = done.stdout.split()
    print(f"{files} files, {readable} readable, {int(peak) / 1e6:.0f} MB more at the peak, {seconds} s")
    assert int(peak) < CORPUS_LIMIT
