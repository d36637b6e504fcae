"""Datasets as the panel shows and changes them: listing, pages, the check, captions, trash and undo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from picture_folders import make_pictures, measured, settle
from PIL import Image

from controlpilot.measuring import Measuring, measuring, thumbnail_path
from controlpilot.views import dataset_changes as changes
from controlpilot.views import datasets
from controlpilot.views.dataset_check import check
from controlpilot.views.dataset_folders import folder
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Trash
from trainpilot.config.schema import RunConfig
from trainpilot.datasets.table import build
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    make_pictures(workspace.datasets / "images" / "10_mycat", 5)
    settle(workspace.datasets)
    return workspace


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_list_has_datasets_of_all_places_and_says_what_is_wrong_with_the_others(place):
    make_pictures(place.root / "lora_training" / "data" / "subject", 2)
    (place.datasets / "images" / "empty").mkdir()
    (place.datasets / "images" / ".incoming").mkdir()
    cards = {card.name: card for card in datasets.listing(place)}
    assert list(cards) == ["10_mycat", "subject", "empty"]
    assert (cards["10_mycat"].images, cards["10_mycat"].captions, cards["10_mycat"].repeats) == (5, 5, 10)
    assert "no pictures" in cards["empty"].problem.message
    with pytest.raises(NotFound, match="Did you mean 10_mycat"):
        folder(place, "10_mycta")


def test_pictures_are_pending_until_the_other_process_has_measured_them(place):
    assert all(one.pending and one.size is None for one in datasets.page(place, "10_mycat").pictures)
    assert measuring(place).wait(60)
    page = datasets.page(place, "10_mycat")
    assert not page.pending and {one.size for one in page.pictures} == {(96, 64)}
    with Image.open(thumbnail_path(place.cache, page.pictures[0].thumb)) as small:
        assert small.format == "WEBP" and small.size == (96, 64)


def test_what_the_panel_measured_is_not_read_again_by_the_trainers_scan(place, monkeypatch):
    measured(place, place.datasets)
    monkeypatch.setattr("trainpilot.datasets.table.inspect", lambda path: pytest.fail(f"{path} was read again"))
    buckets = {"resolution": 64, "step": 8, "min_side": 32, "max_side": 96}
    config = RunConfig.model_validate({"datasets": [{"path": "10_mycat"}], "buckets": buckets})
    assert len(build(config, place).samples) == 5


def test_search_and_filters(place):
    folder = place.datasets / "images" / "10_mycat"
    (folder / "p003.txt").write_text("mycat on a RED chair\n")
    (folder / "p001.txt").unlink()
    assert [one.name for one in datasets.page(place, "10_mycat", query="red CHAIR").pictures] == ["p003.png"]
    assert [one.name for one in datasets.page(place, "10_mycat", only="uncaptioned").pictures] == ["p001.png"]
    assert datasets.page(place, "10_mycat", number=99).page == 1
    with pytest.raises(PilotError, match="uncaptioned"):
        datasets.page(place, "10_mycat", only="uncaptionde")


def test_the_check_names_broken_double_few_and_captionless_pictures(place):
    folder = place.datasets / "images" / "10_mycat"
    (folder / "twin.png").write_bytes((folder / "p000.png").read_bytes())
    (folder / "torn.png").write_bytes((folder / "p001.png").read_bytes()[:60])
    settle(folder)
    check(place, "10_mycat")
    assert measuring(place).wait(60)
    report = check(place, "10_mycat", (15, 20), "bluecat")
    texts = {finding.text: finding.level for finding in report.findings}
    assert report.measured == report.of == 7
    assert any("torn.png" in text and level == "error" for text, level in texts.items())
    assert any("the same picture 2 times: p000.png, twin.png" in text for text in texts)
    assert any(text.startswith("7 pictures; 15 to 20") for text in texts)
    assert any("2 of 7 pictures have no caption" in text for text in texts)
    assert any("'bluecat' is missing in 5 captions" in text for text in texts)


def bomb(path: Path, side: int) -> None:
    """A PNG that says it has side x side pixels, in a few bytes."""
    import struct

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_a_bomb_and_rubbish_are_named_and_the_others_still_measured(place):
    folder = place.datasets / "images" / "10_mycat"
    bomb(folder / "a_bomb.png", 50_000)
    (folder / "b_rubbish.jpg").write_bytes(os.urandom(5000))
    settle(folder)
    datasets.page(place, "10_mycat")
    assert measuring(place).wait(60)
    page = {one.name: one for one in datasets.page(place, "10_mycat").pictures}
    assert "pixels" in page["a_bomb.png"].problem and "not a JPEG" in page["b_rubbish.jpg"].problem
    assert sum(one.size is not None for one in page.values()) == 5


def test_a_picture_that_takes_too_long_is_given_up_and_the_next_one_is_measured(place, monkeypatch):
    paths = sorted((place.datasets / "images" / "10_mycat").glob("*.png"))
    work = Measuring(place, picture_seconds=0.0)
    work.want(paths[:1])
    assert work.wait(60)
    assert "more than 0 s" in work.given_up_reason(paths[0])
    assert work.facts(paths[:1])[paths[0]].problem
    os.utime(paths[0])
    assert work.given_up_reason(paths[0]) is None


def test_the_picture_process_is_bounded_in_memory(tmp_path):
    program = """
import atexit, resource, runpy, sys
atexit.register(lambda: print(resource.getrlimit(resource.RLIMIT_AS)[0]))
sys.argv = ["thumbnails", sys.argv[1]]
runpy.run_module("controlpilot.thumbnails", run_name="__main__")
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(2 << 30)], done.stderr


def test_a_caption_is_written_whole_and_the_earlier_one_can_be_brought_back(place):
    folder = place.datasets / "images" / "10_mycat"
    before = tree(folder)
    changed = changes.write_caption(place, "10_mycat", "p002.png", "mycat, äöü\r\nsecond line ", was="mycat, picture 2")
    assert (folder / "p002.txt").read_bytes() == "mycat, äöü\nsecond line\n".encode()
    assert changed.picture.caption == "mycat, äöü\nsecond line"
    with pytest.raises(Conflict, match="reload"):
        changes.write_caption(place, "10_mycat", "p002.png", "x", was="mycat, picture 2")
    changes.undo(place, changed.undo)
    assert tree(folder) == before


def test_a_new_caption_lies_where_the_others_do(tmp_path):
    workspace = Workspace(tmp_path)
    root = workspace.datasets / "images" / "subject"
    make_pictures(root / "images", 2, captions=False)
    (root / "captions").mkdir()
    (root / "captions" / "p000.txt").write_text("one\n")
    changed = changes.write_caption(workspace, "subject", "images/p001.png", "two")
    assert (root / "captions" / "p001.txt").read_text() == "two\n" and changed.undo == ""


def test_a_caption_in_metadata_changes_its_row_alone(tmp_path):
    workspace = Workspace(tmp_path)
    root = workspace.datasets / "images" / "meta"
    make_pictures(root, 2, captions=False)
    first = '{"file_name": "p000.png",   "text": "one", "extra": [1, 2]}\n'
    (root / "metadata.jsonl").write_text(first + '{"file_name": "p001.png", "text": "two"}\n')
    before = tree(root)
    changed = changes.write_caption(workspace, "meta", "p001.png", "zwei")
    lines = (root / "metadata.jsonl").read_text().splitlines(keepends=True)
    assert lines[0] == first and json.loads(lines[1])["text"] == "zwei"
    changes.undo(workspace, changed.undo)
    assert tree(root) == before


def test_a_picture_goes_to_the_trash_with_its_caption_and_comes_back(place):
    folder = place.datasets / "images" / "10_mycat"
    before = tree(folder)
    gone = changes.remove_picture(place, "10_mycat", "p001.png")
    assert set(before) - set(tree(folder)) == {"p001.png", "p001.txt"}
    with pytest.raises(NotFound):
        changes.remove_picture(place, "10_mycat", "p001.png")
    changes.undo(place, gone.undo)
    assert tree(folder) == before


def test_undo_never_replaces_something_new(place):
    folder = place.datasets / "images" / "10_mycat"
    gone = changes.remove_picture(place, "10_mycat", "p001.png")
    (folder / "p001.png").write_bytes(b"new")
    with pytest.raises(Conflict, match=r"p001\.png exists again"):
        changes.undo(place, gone.undo)
    assert (folder / "p001.png").read_bytes() == b"new" and not (folder / "p001.txt").exists()


def test_the_last_picture_stays(tmp_path):
    workspace = Workspace(tmp_path)
    make_pictures(workspace.datasets / "images" / "one", 1)
    with pytest.raises(Conflict):
        changes.remove_picture(workspace, "one", "p000.png")


def test_repeats_are_the_folders_name_and_a_taken_name_is_refused(place):
    assert changes.rename(place, "10_mycat", repeats=25).dataset == "25_mycat"
    assert datasets.listing(place)[0].repeats == 25
    make_pictures(place.datasets / "images" / "7_mycat", 1)
    with pytest.raises(Conflict):
        changes.rename(place, "25_mycat", repeats=7)
    with pytest.raises(PilotError, match="10000"):
        changes.rename(place, "25_mycat", repeats=10_001)
    with pytest.raises(PilotError):
        changes.rename(place, "25_mycat", subject="../x")
    assert (place.datasets / "images" / "25_mycat" / "p000.png").is_file()


def test_a_whole_dataset_goes_and_comes_back(place):
    before = tree(place.datasets)
    gone = changes.remove_dataset(place, "10_mycat")
    assert datasets.listing(place) == []
    assert [entry.why for entry in Trash(place).entries()] == ["dataset 10_mycat"]
    changes.undo(place, gone.undo)
    assert tree(place.datasets) == before and Trash(place).entries() == []


@pytest.mark.parametrize("file", ["../../VERSION", "/etc/passwd", "p000.txt", "x\0.png", "", "p000.png/"])
def test_only_pictures_of_the_dataset_can_be_named(place, file):
    with pytest.raises(NotFound):
        changes.write_caption(place, "10_mycat", file, "x")


def test_the_trash_takes_nothing_from_outside(place, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.write_text("mine")
    with pytest.raises(PilotError):
        Trash(place).move([outside], "no")
    (place.root / "link").symlink_to(outside.parent)
    with pytest.raises(PilotError):
        Trash(place).move([place.root / "link" / "file"], "no")
    assert outside.read_text() == "mine"
    with pytest.raises(NotFound):
        Trash(place).entry("../..")


def test_ten_thousand_pictures_are_listed_in_a_moment(tmp_path):
    import time

    workspace = Workspace(tmp_path)
    folder = workspace.datasets / "images" / "5_many"
    first = make_pictures(folder, 1)[0]
    for number in range(1, 10_000):
        os.link(first, folder / f"q{number:05d}.png")
        (folder / f"q{number:05d}.txt").write_text(f"number {number}")
    datasets.page(workspace, "5_many", 100)
    began = time.perf_counter()
    page = datasets.page(workspace, "5_many", 150)
    took = time.perf_counter() - began
    assert page.pages == 167 and page.total == 10_000 and len(page.pictures) == 60
    assert took < 0.3, f"{took:.2f} s"
    assert [one.name for one in datasets.page(workspace, "5_many", query="number 9999").pictures] == ["q09999.png"]
