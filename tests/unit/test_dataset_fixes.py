"""Mending datasets: what a fix changes, what it leaves, and that the trash gives everything back, byte by byte."""

import json
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import jpeg, saved, scene, write_bad
from PIL import Image, ImageOps

from trainpilot.cli import main
from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.fixes import find, fixes, options_of
from trainpilot.datasets.images import open_rgb
from trainpilot.datasets.layouts import discover
from trainpilot.datasets.mending import Subject, apply
from trainpilot.errors import PilotError
from trainpilot.trash import NotKept, Occupied, Trash
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("PILOT_CACHE", raising=False)
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def bad(workspace):
    folder = workspace.datasets / "images" / "bad"
    write_bad(folder)
    for image in list(folder.iterdir()):
        image.with_suffix(".txt").write_text(f"ohwx, {image.name}\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def mended(kind: str, folder: Path, workspace: Workspace, **options):
    dataset = Subject(folder, workspace)
    return dataset, apply(dataset, list(find(kind).steps(dataset, options_of(kind, options))), f"fix {kind}")


def picture(path: Path) -> np.ndarray:
    return np.asarray(open_rgb(path)).astype(int)


@pytest.mark.parametrize(
    ("kind", "options", "changed"),
    [
        ("upright", {}, {"turned.jpg"}),
        ("rgb", {}, {"print.jpg", "deep.png", "clear.png", "moving.png"}),
        ("borders", {}, {"letterbox.jpg"}),
        ("smaller", {"side": 512}, {"long.jpg"}),
        ("damaged", {}, {"cut.jpg", "cut.png", "cut.webp", "empty.png", "words.jpg", "page.webp", "bomb.png"}),
    ],
)
def test_a_fix_changes_its_files_alone_and_the_trash_gives_them_back(kind, options, changed, bad, workspace):
    before = contents(bad)
    dataset, done = mended(kind, bad, workspace, **options)
    after = contents(bad)
    pictures = {name for name in before if after.get(name) != before[name] and not name.endswith(".txt")}
    assert pictures == changed and done.entries
    for name in changed & after.keys():
        if kind != "smaller" and kind != "borders":
            # What training saw before is what the file now holds.
            kept = next(
                one.kept for e in done.entries for one in dataset.trash.entry(e).files if one.origin.name == name
            )
            assert np.abs(picture(bad / name) - picture(kept)).mean() < 2
    assert not list(find(kind).steps(Subject(bad, workspace), options_of(kind, options))), "mended means mended"
    for entry in done.entries:
        dataset.trash.restore(entry)
    assert contents(bad) == before


def test_a_rewritten_picture_is_upright_plain_and_of_its_format(bad, workspace):
    mended("rgb", bad, workspace)
    mended("upright", bad, workspace)
    for name, kind in {"print.jpg": "JPEG", "deep.png": "PNG", "moving.png": "PNG", "turned.jpg": "JPEG"}.items():
        with Image.open(bad / name) as image:
            assert (image.format, image.mode, getattr(image, "n_frames", 1)) == (kind, "RGB", 1)
            assert image.getexif().get(0x0112, 1) == 1
    assert Image.open(bad / "turned.jpg").size == (160, 256)


def test_borders_are_cut_to_what_they_frame(bad, workspace):
    mended("borders", bad, workspace)
    assert Image.open(bad / "letterbox.jpg").size == pytest.approx((256, 192), abs=4)


def test_duplicates_leave_the_largest_and_take_captions_along(workspace):
    folder = workspace.datasets / "images" / "twins"
    folder.mkdir(parents=True)
    image = scene(1, (320, 240))
    (folder / "a.jpg").write_bytes(jpeg(image.resize((160, 120))))
    (folder / "b.jpg").write_bytes(jpeg(image))
    (folder / "c.jpg").write_bytes(jpeg(ImageOps.mirror(image).resize((200, 150))))
    (folder / "d.jpg").write_bytes(jpeg(image))
    (folder / "other.jpg").write_bytes(jpeg(scene(2, (320, 240))))
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(path.name)
    before = contents(folder)
    dataset, exact = mended("duplicates", folder, workspace)
    assert before.keys() - contents(folder).keys() == {"d.jpg", "d.txt"}
    _, near = mended("duplicates", folder, workspace, near=True)
    assert set(contents(folder)) == {"b.jpg", "b.txt", "other.jpg", "other.txt"}
    for entry in (*near.entries, *exact.entries):
        dataset.trash.restore(entry)
    assert contents(folder) == before


def test_rows_of_a_metadata_file_go_with_their_pictures(workspace):
    folder = workspace.datasets / "listed"
    (folder / "images").mkdir(parents=True)
    for name, seed in (("a.jpg", 1), ("b.jpg", 1), ("c.jpg", 2)):
        (folder / "images" / name).write_bytes(jpeg(scene(seed)))
    rows = [{"file_name": f"images/{name}.jpg", "text": f"ohwx {name}", "note": 1} for name in "abc"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mended("duplicates", folder, workspace)
    assert [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()] == [rows[0], rows[2]]
    assert not discover(folder).notes


def test_captions_become_utf8_and_begin_with_the_trigger(workspace):
    folder = workspace.datasets / "images" / "words"
    folder.mkdir(parents=True)
    for name, text in (
        ("a", "ein Bär".encode("cp1252")),
        ("b", b"ohwx, a bear"),
        ("c", "un café".encode("utf-16")),
    ):
        (folder / f"{name}.jpg").write_bytes(jpeg(scene(1)))
        (folder / f"{name}.txt").write_bytes(text)
    mended("utf8", folder, workspace)
    assert [(folder / f"{name}.txt").read_text("utf-8").strip() for name in "abc"] == [
        "ein Bär",
        "ohwx, a bear",
        "un café",
    ]
    _, done = mended("trigger", folder, workspace, trigger="ohwx")
    assert done.rewritten == 2
    assert [read_caption(folder / f"{name}.txt")[0] for name in "abc"] == [
        "ohwx, ein Bär",
        "ohwx, a bear",
        "ohwx, un café",
    ]


def test_a_dataset_outside_of_the_workspace_has_a_trash_beside_it(tmp_path, workspace):
    folder = tmp_path / "elsewhere" / "pictures"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(saved(scene(1), "PNG"))
    dataset, done = mended("damaged", folder, workspace)
    assert dataset.trash.folder == folder.parent / ".trash" == done.trash
    dataset.trash.restore(done.entries[0])
    assert (folder / "a.png").read_bytes() == b""


def test_the_trash_refuses_what_it_cannot_give_back(tmp_path):
    trash = Trash(tmp_path)
    (tmp_path / "a").write_text("old")
    entry = trash.move([tmp_path / "a"], "test")
    (tmp_path / "a").write_text("new")
    with pytest.raises(Occupied):
        trash.restore(entry.id)
    assert (tmp_path / "a").read_text() == "new"
    with pytest.raises(NotKept):
        trash.entry("../../etc")
    with pytest.raises(PilotError, match="inside the workspace"):
        trash.move([tmp_path.parent / "b"], "test")


def test_the_command_previews_and_does(bad, workspace, capsys):
    before = contents(bad)
    common = ["dataset", "fix", "bad", "damaged", "--workspace", str(workspace.root), "--json"]
    assert main([*common, "--dry-run"]) == 0
    preview = json.loads(capsys.readouterr().out)
    assert contents(bad) == before and not preview["done"] and not (workspace.root / ".trash").exists()
    assert main(common) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["files"] == preview["files"] and done["done"]
    assert main(common) == 0
    assert json.loads(capsys.readouterr().out)["files"] == []


def test_every_fix_is_a_command(capsys):
    for kind in fixes():
        with pytest.raises(SystemExit) as ended:
            main(["dataset", "fix", "x", kind, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(f"--{field}" in shown for field in fixes()[kind].Params.model_fields)
