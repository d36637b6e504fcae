"""Datasets written anew: every layout into every other, nothing lost; splits, repeats; what changed since a run."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from bad_pictures import jpeg, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainpilot.cli import main
from trainpilot.datasets import since
from trainpilot.datasets.arrange import LAYOUTS, balanced, caption_of, repeats_for, split, write
from trainpilot.datasets.layouts import Found, discover
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

CAPTIONS = {"a": "ohwx, a hill", "b": "ohwx, two lines\nof an ünusual caption", "c": "", "d": None}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate("abcd"):
        (folder / f"{name}.jpg").write_bytes(jpeg(scene(number, (64, 48))))
    return folder


@pytest.fixture
def dataset(pictures, tmp_path):
    """One folder with captions beside the pictures."""
    folder = tmp_path / "ohwx"
    shutil.copytree(pictures, folder)
    for name, text in CAPTIONS.items():
        if text is not None:
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def contents(root) -> Counter:
    """What a dataset holds, wherever it lies: picture bytes with captions."""
    return Counter((one.image.read_bytes(), caption_of(one)) for one in discover(root).images)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_every_layout_becomes_every_other_and_nothing_is_lost(first, second, dataset, tmp_path):
    before = contents(dataset)
    one = write(discover(dataset).images, dataset, tmp_path / "one" / "ohwx", first)
    assert one.kind == first
    two = write(one.images, one.root, tmp_path / "two" / "ohwx", second)
    assert (two.kind, two.notes) == (second, [])
    assert contents(two.root) == before == contents(dataset)
    assert {found.class_tokens or "ohwx" for found in two.images} == {"ohwx"}


def test_names_that_meet_are_kept_apart(dataset, tmp_path):
    project = tmp_path / "project"
    for number, name in enumerate(("3_foo", "5_bar")):
        shutil.copytree(dataset, project / name)
        (project / name / "a.txt").write_text(f"caption {number}")
    images = discover(project).images
    for layout in ("side by side", "images and captions", "metadata"):
        made = write(images, project, tmp_path / layout / "x", layout)
        assert contents(made.root) == contents(project), layout
    back = write(images, project, tmp_path / "back", "repeat folders")
    assert {(found.repeats, found.class_tokens) for found in back.images} == {(3, "foo"), (5, "bar")}


def test_a_failure_leaves_nothing_behind(dataset, tmp_path):
    images = discover(dataset).images
    (dataset / "b.jpg").unlink()
    with pytest.raises(OSError):
        write(images, dataset, tmp_path / "new", "metadata")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ohwx"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(PilotError, match="exists already"):
        write(images, dataset, tmp_path / "taken", "metadata")


def test_several_concepts_are_no_repeat_folder(dataset, tmp_path):
    for name in ("3_foo", "5_bar"):
        shutil.copytree(dataset, tmp_path / "project" / name)
    project = tmp_path / "project"
    with pytest.raises(PilotError, match="repeat folders"):
        write(discover(project).images, project, tmp_path / "one", "repeat folder")


# --- splits, balance, repeats -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.9), st.integers(0, 9), st.lists(st.integers(0, 199), max_size=2))
def test_a_split_is_of_its_size_the_same_again_and_parts_no_copies(count, share, seed, copied):
    images = [Found(Path(f"{number}.png")) for number in range(count)]
    groups = [[images[number % count], images[(number + 1) % count]] for number in copied[:1]]
    apart = count - len(groups)
    if max(1, round(share * apart)) >= apart:
        return
    chosen = split(images, share, seed, groups)
    assert chosen == split(images, share, seed, groups)
    assert abs(len(chosen) - max(1, round(share * apart))) <= 1
    for one, two in groups:
        assert (one in chosen) == (two in chosen)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 500), min_size=1, max_size=6))
def test_balanced_concepts_are_about_equally_often_seen(counts):
    repeats = balanced(counts)
    most = max(counts.values())
    assert all(abs(count * repeats[name] - most) <= count / 2 for name, count in counts.items())
    assert repeats[max(counts, key=counts.__getitem__)] == 1


def test_the_guides_example_of_repeats(capsys):
    assert repeats_for(1000, 10, 10, 2) == 20
    words = ["dataset", "repeats", "--steps", "1000", "--epochs", "10", "--images", "10", "--batch", "2", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"repeats": 20, "images": 10, "steps": 1000}
    assert main(["dataset", "repeats", "--json"]) == 2
    assert "--images" in json.loads(capsys.readouterr().out)["error"]["where"]


def test_the_commands_write_beside(dataset, tmp_path, capsys):
    before = contents(dataset)
    workspace = ["--workspace", str(tmp_path / "workspace"), "--json"]
    assert main(["dataset", "convert", str(dataset), "metadata", *workspace]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["layout"], made["images"]) == ("metadata", len(CAPTIONS))
    assert main(["dataset", "split", str(dataset), "--share", "0.25", *workspace]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert {name: part["images"] for name, part in parts.items()} == {"train": 3, "validation": 1}
    assert sum((contents(Path(part["path"])) for part in parts.values()), Counter()) == before
    for name, count in (("1_foo", 4), ("1_bar", 2)):
        shutil.copytree(dataset, tmp_path / "project" / name)
        for path in sorted((tmp_path / "project" / name).glob("*.jpg"))[count:]:
            path.unlink()
            path.with_suffix(".txt").unlink(missing_ok=True)
    target = tmp_path / "equal"
    assert main(["dataset", "balance", str(tmp_path / "project"), "--to", str(target), *workspace]) == 0
    capsys.readouterr()
    seen = Counter()
    for found in discover(target).images:
        seen[found.class_tokens] += found.repeats
    assert seen["foo"] == seen["bar"]
    assert contents(dataset) == before


# --- since a run ------------------------------------------------------------------------------------------------------


def record(workspace, table, run):
    workspace.logs.mkdir(parents=True, exist_ok=True)
    rows = [f"{one.sha256}  {one.repeats:>4}x  {one.image}" for one in table.samples]
    (workspace.logs / f"{run}_dataset_hash.txt").write_text(
        "\n".join([f"{table.fingerprint()}  whole dataset", *rows, ""])
    )


def test_what_changed_since_a_run(dataset, tmp_path, monkeypatch):
    monkeypatch.delenv("PILOT_CACHE", raising=False)
    workspace = Workspace(tmp_path / "workspace")
    record(workspace, since.table_of(dataset, workspace), "r")
    before = since.recorded(workspace, "r")
    assert since.compare(before, since.table_of(dataset, workspace)).none
    (dataset / "a.txt").write_text("another caption")
    changes = since.compare(before, since.table_of(dataset, workspace))
    assert changes.captions and not changes.replaced
    (dataset / "e.jpg").write_bytes(jpeg(scene(40, (64, 48))))
    (dataset / "b.jpg").write_bytes(jpeg(scene(41, (64, 48))))
    (dataset / "c.jpg").rename(dataset / "cc.jpg")
    (dataset / "d.jpg").unlink()
    changes = since.compare(before, since.table_of(dataset, workspace))
    at = str(dataset)
    assert (changes.added, changes.removed, changes.replaced) == ([f"{at}/e.jpg"], [f"{at}/d.jpg"], [f"{at}/b.jpg"])
    assert changes.moved == {f"{at}/c.jpg": f"{at}/cc.jpg"}


def test_a_record_that_no_run_wrote(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(PilotError, match="none has"):
        since.recorded(workspace, "r")
    (tmp_path / "logs").mkdir()
    for text in ("", "hello\n", f"{'0' * 64}  whole dataset\nhello\n"):
        (tmp_path / "logs" / "r_dataset_hash.txt").write_text(text)
        with pytest.raises(PilotError, match="record of a run"):
            since.recorded(workspace, "r")


def test_a_fingerprint_is_of_contents(dataset, tmp_path, capsys):
    def printed(path) -> str:
        assert main(["dataset", "fingerprint", str(path), "--workspace", str(tmp_path / "w"), "--json"]) == 0
        return json.loads(capsys.readouterr().out)["fingerprint"]

    first = printed(dataset)
    shutil.copytree(dataset, tmp_path / "elsewhere")
    assert printed(tmp_path / "elsewhere") == first
    Image.new("RGB", (64, 48)).save(tmp_path / "elsewhere" / "a.jpg")
    assert printed(tmp_path / "elsewhere") != first
