"""Uploads as files: collected beside the datasets, put in place whole, refused whole."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from pathlib import Path

import pytest
from picture_folders import make_pictures
from PIL import Image

from controlpilot.uploads import Uploads, Wanted, safe_path
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Trash
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace


def picture(shade: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 2, 3)).save(data, "PNG")
    return data.getvalue()


def packed(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def sent(uploads: Uploads, dataset: str, files: dict[str, bytes], *, add: bool = False) -> str:
    wanted = Wanted(dataset=dataset, add=add, files=[{"path": name, "size": len(data)} for name, data in files.items()])
    upload = uploads.begin(wanted)
    for number, data in enumerate(files.values()):
        uploads.append(upload.id, number, 0, io.BytesIO(data), len(data)) if data else None
    return upload.id


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(Workspace(tmp_path))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_dataset_appears_only_when_every_file_is_whole(uploads):
    place = uploads.workspace.datasets / "images" / "3_cat"
    data = picture()
    upload = uploads.begin(
        Wanted(dataset="3_cat", files=[{"path": "a.png", "size": len(data)}, {"path": "a.txt", "size": 3}])
    )
    uploads.append(upload.id, 0, 0, io.BytesIO(data[:20]), 20)
    uploads.append(upload.id, 1, 0, io.BytesIO(b"cat"), 3)
    with pytest.raises(Conflict, match=r"missing: a\.png"):
        uploads.finish(upload.id)
    assert not place.exists()
    assert uploads.offset(upload.id, 0) == (20, len(data))
    uploads.append(upload.id, 0, 20, io.BytesIO(data[20:]), None)
    assert uploads.finish(upload.id).state == "done"
    assert (place / "a.png").read_bytes() == data and (place / "a.txt").read_text() == "cat"
    assert uploads.finish(upload.id).state == "done"


def test_a_cut_chunk_keeps_what_arrived_and_another_offset_is_refused(uploads):
    class Cut(io.RawIOBase):
        def __init__(self) -> None:
            self.left = [b"12345", b"678"]

        def read(self, size: int = -1) -> bytes:
            if not self.left:
                raise OSError("connection reset")
            return self.left.pop(0)

    upload = uploads.begin(Wanted(dataset="x", files=[{"path": "a.png", "size": 20}]))
    with pytest.raises(OSError, match="reset"):
        uploads.append(upload.id, 0, 0, Cut(), 20)
    assert uploads.offset(upload.id, 0) == (8, 20)
    for wrong in (0, 7, 9):
        with pytest.raises(Conflict):
            uploads.append(upload.id, 0, wrong, io.BytesIO(b"x"), 1)
    with pytest.raises(PilotError, match="announced"):
        uploads.append(upload.id, 0, 8, io.BytesIO(b"x" * 13), 13)
    assert uploads.append(upload.id, 0, 8, io.BytesIO(b"y" * 99), None) == 20, "never more than was announced"


def test_two_writers_of_one_file_do_not_mix(uploads):
    upload = uploads.begin(Wanted(dataset="x", files=[{"path": "a.png", "size": 6}]))
    inside, go = threading.Event(), threading.Event()

    class Slow(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            inside.set()
            assert go.wait(10)
            return b"first!"

    first = threading.Thread(target=uploads.append, args=(upload.id, 0, 0, Slow(), 6))
    first.start()
    assert inside.wait(10)
    with pytest.raises(Conflict, match="another request"):
        uploads.append(upload.id, 0, 0, io.BytesIO(b"second"), 6)
    go.set()
    first.join()
    assert (uploads.folder / upload.id / "parts" / "0").read_bytes() == b"first!"


def test_two_uploads_to_one_name_do_not_mix(uploads):
    one = sent(uploads, "cat", {"a.png": picture(1)})
    two = sent(uploads, "cat", {"b.png": picture(2)})
    assert uploads.finish(one).state == "done"
    late = uploads.finish(two)
    assert late.state == "failed" and "meanwhile" in late.reason
    assert names(uploads.workspace.datasets / "images" / "cat") == ["a.png"]


def test_adding_replaces_through_the_trash(uploads):
    place = uploads.workspace.datasets / "images" / "cat"
    make_pictures(place, 2)
    old = (place / "p001.png").read_bytes()
    done = uploads.finish(sent(uploads, "cat", {"p001.png": picture(9), "new.png": picture(8)}, add=True))
    assert done.state == "done" and (place / "p001.png").read_bytes() == picture(9)
    (entry,) = Trash(uploads.workspace).entries()
    assert entry.id == done.replaced and entry.files[0].kept.read_bytes() == old
    with pytest.raises(Conflict, match="does not exist"):
        uploads.begin(Wanted(dataset="dog", add=True, files=[{"path": "a.png", "size": 1}]))
    with pytest.raises(Conflict, match="exists"):
        uploads.begin(Wanted(dataset="cat", files=[{"path": "a.png", "size": 1}]))


def test_a_link_inside_a_dataset_is_not_followed_out_of_it(uploads, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    place = uploads.workspace.datasets / "images" / "cat"
    make_pictures(place, 1)
    (place / "sub").symlink_to(outside)
    done = uploads.finish(sent(uploads, "cat", {"sub/evil.png": picture(), "b.png": picture()}, add=True))
    assert done.state == "failed"
    assert list(outside.iterdir()) == []


HOSTILE = [
    "../a.png", "/a.png", "a/../../b.png", "a\\..\\b.png", "C:/a.png", "a\0.png", "a\n.png", ".hidden.png", "a//b.png",
    "./a.png", "x" * 201 + ".png", " a.png", "a/b/c/d/e/f/g.png", "\u202egnp.exe.png", "",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(uploads, name):
    with pytest.raises((PilotError, ValueError)):
        safe_path(name)
        Wanted(dataset="x", files=[{"path": name, "size": 1}])
    assert not uploads.folder.exists() or names(uploads.folder) == []


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "", "x\n", "images", "a\0"])
def test_hostile_dataset_names_are_refused(uploads, name):
    with pytest.raises((PilotError, ValueError)):
        uploads.begin(Wanted(dataset=name, files=[{"path": "a.png", "size": 1}]))


@pytest.mark.parametrize("ident", ["..", "x", "0" * 16, "../../etc", "0" * 15 + "\n"])
def test_an_unknown_upload_is_not_found(uploads, ident):
    for call in (uploads.read, uploads.finish, uploads.cancel, lambda i: uploads.offset(i, 0)):
        with pytest.raises(NotFound):
            call(ident)


def test_sizes_counts_and_endings_are_capped(uploads):
    def begin(files: list[dict[str, object]]) -> None:
        uploads.begin(Wanted(dataset="x", files=files))

    with pytest.raises(ValueError):
        begin([{"path": "a.png", "size": 1 << 60}])
    with pytest.raises(PilotError, match="free"):
        begin([{"path": "a.png", "size": 199 << 30}])
    with pytest.raises(PilotError, match="twice"):
        begin([{"path": "a.png", "size": 1}, {"path": "A.png", "size": 1}])
    with pytest.raises(PilotError, match=r"run\.exe"):
        begin([{"path": "run.exe", "size": 1}])


def test_a_dropped_folder_and_a_zipped_folder_are_not_one_level_too_deep(uploads):
    files = {"my cat/a.png": picture(1), "my cat/a.txt": b"cat"}
    assert uploads.finish(sent(uploads, "2_cat", files)).state == "done"
    assert names(uploads.workspace.datasets / "images" / "2_cat") == ["a.png", "a.txt"]
    archive = packed(
        ("dog/a.png", picture(1)), ("dog/a.txt", b"dog"), ("__MACOSX/dog/._a.png", b"x"), ("dog/.DS_Store", b"")
    )
    assert uploads.finish(sent(uploads, "2_dog", {"dog.zip": archive})).state == "done"
    assert names(uploads.workspace.datasets / "images" / "2_dog") == ["a.png", "a.txt"]


def linked() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.png")
    info.external_attr = 0o120777 << 16
    return info


def lying() -> bytes:
    """A zip whose directory says ten bytes where the stream holds a thousand."""
    data = packed(("a.png", b"\0" * 1000))
    return data.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"))


ARCHIVES = {
    "slip": packed(("a.png", picture()), ("../../evil.png", picture())),
    "absolute": packed(("/tmp/evil.png", picture())),
    "link": packed(("a.png", picture()), (linked(), b"/etc/passwd")),
    "bomb": packed(("a.png", b"\0" * (300 << 20))),
    "lying": lying(),
    "program": packed(("a.png", picture()), ("run.sh", b"#!/bin/sh")),
    "nested": packed(("a.png", picture()), ("b.zip", packed(("c.png", picture())))),
    "twice": packed(("a.png", picture()), ("A.PNG", picture(3))),
    "torn": packed(("a.png", picture()))[:-30],
    "no zip": b"not a zip at all",
    "no picture": packed(("a.txt", b"cat")),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_bad_archive_is_refused_whole_and_leaves_nothing(uploads, kind):
    done = uploads.finish(sent(uploads, "cat", {"x.zip": ARCHIVES[kind]}))
    assert done.state == "failed" and done.reason
    images = uploads.workspace.datasets / "images"
    assert not images.exists() or list(images.iterdir()) == []
    assert not (uploads.workspace.datasets.parent / "evil.png").exists() and not Path("/tmp/evil.png").exists()
    uploads.cancel(done.id)
    assert uploads.all() == []


def test_a_cancelled_upload_is_in_the_trash(uploads):
    ident = sent(uploads, "cat", {"a.png": picture()})
    uploads.cancel(ident)
    assert [entry.why for entry in Trash(uploads.workspace).entries()] == ["upload cat, cancelled"]
    with pytest.raises(NotFound):
        uploads.read(ident)


def test_a_check_that_died_can_be_finished_again(uploads):
    ident = sent(uploads, "cat", {"a.png": picture()})
    record = uploads._record(ident)
    (uploads.folder / ident / "ready").mkdir()
    (uploads.folder / ident / "ready" / "half.png").write_bytes(b"half")
    uploads._write(record, state="checking", pid=os.getpid() + 1)
    assert uploads.read(ident).state == "receiving"
    assert uploads.finish(ident).state == "done"
    assert names(uploads.workspace.datasets / "images" / "cat") == ["a.png"]
