"""Layouts: each of the six is found from its folder and from its inner one; what is wrong is said by name."""

import json
from pathlib import Path

import pytest

from trainpilot.datasets.layouts import Layout, discover, printable
from trainpilot.errors import PilotError


def make(root: Path, *names: str) -> Path:
    """Empty files: layouts are told by names alone."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def shape(layout: Layout) -> list[tuple[str, str | None, int, str]]:
    return [
        (f"{one.folder}/{one.image.name}", one.caption_path and one.caption_path.name, one.repeats, one.class_tokens)
        for one in layout.images
    ]


def test_a_repeat_folder(tmp_path):
    root = make(tmp_path / "10_my_zorp", "b.JPG", "a.png", "a.txt", "c.webp", "notes.pdf")
    layout = discover(root)
    assert layout.kind == "repeat folder"
    assert shape(layout) == [
        ("/a.png", "a.txt", 10, "my_zorp"),
        ("/b.JPG", None, 10, "my_zorp"),
        ("/c.webp", None, 10, "my_zorp"),
    ]


@pytest.mark.parametrize("inner", ["", "img", "images"])
def test_the_parent_of_repeat_folders(tmp_path, inner):
    make(tmp_path / inner, "3_cat/a.png", "3_cat/a.txt", "12_dog/b.png", "log/x.txt", "extra/c.png")
    layout = discover(tmp_path)
    assert layout.kind == "repeat folders"
    assert [(one.image.name, one.repeats, one.class_tokens) for one in layout.images] == [
        ("b.png", 12, "dog"),
        ("a.png", 3, "cat"),
    ]
    assert any("extra/ (1)" in note for note in layout.notes)


@pytest.mark.parametrize("given", ["", "images"])
def test_images_and_captions(tmp_path, given):
    make(tmp_path, "images/a.png", "images/b.png", "captions/a.txt", "captions/lost.txt")
    layout = discover(tmp_path / given)
    assert layout.kind == "images and captions"
    assert [(one.image.name, one.caption_path) for one in layout.images] == [
        ("a.png", tmp_path / "captions" / "a.txt"),
        ("b.png", None),
    ]
    assert any("lost.txt" in note for note in layout.notes)


def test_images_and_captions_inside_a_repeat_folder(tmp_path):
    root = make(tmp_path / "5_zorp", "images/a.png", "captions/a.txt")
    assert shape(discover(root)) == [("images/a.png", "a.txt", 5, "zorp")]


def test_side_by_side_with_another_ending(tmp_path):
    make(tmp_path, "a.png", "a.caption", "a.txt", "sub/c.png")
    layout = discover(tmp_path, caption_extension=".caption")
    assert layout.kind == "side by side"
    assert shape(layout) == [("/a.png", "a.caption", 1, "")]
    assert any("sub/ (1)" in note for note in layout.notes)


@pytest.mark.parametrize(("place", "given"), [("", ""), ("", "images"), ("images", ""), ("images", "images")])
def test_metadata(tmp_path, place, given):
    make(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/c.txt")
    prefix = "images/" if not place else ""
    rows = [{"file_name": f"{prefix}b.png", "text": "bee"}, {"file_name": f"{prefix}a.png", "text": "ay"}]
    rows.append({"file_name": "gone.png", "text": "x"})
    (tmp_path / place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    layout = discover(tmp_path / given)
    assert layout.kind == "metadata"
    assert [
        (one.image.name, one.caption_text, one.caption_path and one.caption_path.name) for one in layout.images
    ] == [
        ("a.png", "ay", None),
        ("b.png", "bee", None),
        ("c.png", None, "c.txt"),
    ]
    assert any("gone.png" in note for note in layout.notes) and any("c.png" in note for note in layout.notes)


def test_metadata_names_beside_images_are_found_inside(tmp_path):
    make(tmp_path, "images/a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "prompt": "ay"}')
    assert discover(tmp_path, caption_column="prompt").images[0].caption_text == "ay"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"file_name": "../secret.png", "text": "x"}', "inside"),
        ('{"file_name": "/etc/secret.png", "text": "x"}', "inside"),
        ('{"file_name": "C:\\\\secret.png", "text": "x"}', "inside"),
        ('{"file_name": "a/..\\\\..\\\\secret.png", "text": "x"}', "inside"),
        ('{"file_name": "a.png", "text": 3}', "text"),
        ('{"file_name": "a.png", "caption": "x"}', "'text'"),
        ('{"text": "x"}', "file_name"),
        ("{broken", "JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_wrong_metadata_is_refused_by_line(tmp_path, row, said):
    make(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "ok"}\n' + row)
    with pytest.raises(PilotError) as caught:
        discover(tmp_path)
    assert caught.value.where.endswith("metadata.jsonl line 2")
    assert said in caught.value.message


def test_concepts(tmp_path):
    make(
        tmp_path, "cat/a.png", "cat/a.txt", "dog/images/b.png", "dog/captions/b.txt", "4_owl/images/c.png", "empty/x.md"
    )
    (tmp_path / "emu").mkdir()
    make(tmp_path / "emu", "d.png")
    (tmp_path / "emu" / "metadata.jsonl").write_text('{"file_name": "d.png", "text": "an emu"}')
    layout = discover(tmp_path)
    # a folder of repeats among them makes it a folder of repeat folders, and says what that leaves out
    assert layout.kind == "repeat folders" and any("cat/" in note for note in layout.notes)
    (tmp_path / "4_owl").rename(tmp_path / "owl")
    layout = discover(tmp_path)
    assert layout.kind == "concepts"
    assert shape(layout) == [
        ("cat/a.png", "a.txt", 1, "cat"),
        ("dog/images/b.png", "b.txt", 1, "dog"),
        ("emu/d.png", None, 1, "emu"),
        ("owl/images/c.png", None, 1, "owl"),
    ]
    assert layout.images[2].caption_text == "an emu"


def test_hidden_files_and_folders_are_never_looked_at(tmp_path):
    make(tmp_path, "a.png", "._a.png", ".trash/b.png", ".hidden/3_x/c.png")
    assert [one.image.name for one in discover(tmp_path).images] == ["a.png"]


def test_a_date_is_no_number_of_repeats(tmp_path):
    layout = discover(make(tmp_path / "20260101_walk", "a.png"))
    assert layout.images[0].repeats == 1
    assert any("not taken as repeats" in note for note in layout.notes)


def test_repeats_of_the_configuration_win(tmp_path):
    assert discover(make(tmp_path / "10_x", "a.png"), repeats=2).images[0].repeats == 2


def test_masks_are_matched_by_name_and_are_no_concept(tmp_path):
    make(tmp_path, "cat/a.png", "cat/b.png", "mine/cat/a.jpg", "mine/b.png")
    layout = discover(tmp_path, masks=tmp_path / "mine")
    assert [(one.image.name, one.mask) for one in layout.images] == [
        ("a.png", tmp_path / "mine" / "cat" / "a.jpg"),
        ("b.png", tmp_path / "mine" / "b.png"),
    ]
    with pytest.raises(PilotError, match="no mask"):
        discover(tmp_path / "cat", masks=make(tmp_path / "other", "z.png"))


def test_pictures_of_one_name_are_said(tmp_path):
    layout = discover(make(tmp_path, "a.png", "a.jpg", "a.txt"))
    assert len(layout.images) == 2 and any("share one caption" in note for note in layout.notes)


def test_a_missing_folder_names_what_is_near(tmp_path):
    make(tmp_path, "10_zorp/a.png")
    with pytest.raises(PilotError) as caught:
        discover(tmp_path / "zorp")
    assert str(tmp_path / "10_zorp") in caught.value.remedy
    with pytest.raises(PilotError, match="a file"):
        discover(tmp_path / "10_zorp" / "a.png")


def test_a_folder_without_pictures_says_what_it_holds(tmp_path):
    make(tmp_path, "a.heic", "b.heic", "deep/er/still/c.png")
    with pytest.raises(PilotError) as caught:
        discover(tmp_path)
    assert "2 .heic" in caught.value.given and "1 pictures in deep/er/still/" in caught.value.given
    (tmp_path / "void").mkdir()
    with pytest.raises(PilotError, match="it is empty"):
        discover(tmp_path / "void")


def test_names_cannot_steer_a_terminal():
    assert printable("a\x1b[2J\nb é") == "a\\x1b[2J\\nb é"
