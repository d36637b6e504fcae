"""`trainpilot caption` from end to end: modes, trigger, every layout, stopping, dying, going on, undo, fetching."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny_captioners as tiny
from file_server import serving
from PIL import Image

from trainpilot import captioners, cli
from trainpilot.captioners.wd14 import Wd14
from trainpilot.datasets import caption_files, caption_journal, caption_sets
from trainpilot.datasets.caption_journal import Journal
from trainpilot.errors import ExitCode
from trainpilot.models import web
from trainpilot.runs.events import history
from trainpilot.runs.jobdir import JobDir, jobdirs
from trainpilot.workspace import Workspace

COUNT = 7


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a tagger and a dataset: seven pictures, the first three with captions."""
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("PILOT_DEVICE", "cpu")
    monkeypatch.setenv("PILOT_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    workspace = Workspace(tmp_path / "ws")
    tiny.wd14(workspace.models / "captioners" / "wd-swinv2-tagger-v3")
    folder = workspace.datasets / "images" / "3_zorp"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        Image.new("RGB", (24, 16), (number * 30, 200 - number * 20, 90)).save(folder / f"p{number}.png")
        if number < 3:
            (folder / f"p{number}.txt").write_bytes(f"old {number}, 1girl\r\n".encode("utf-8-sig"))
    return workspace


def folder(place: Workspace) -> Path:
    return place.datasets / "images" / "3_zorp"


def state(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and caption_journal.FOLDER not in path.parts
    }


def texts(root: Path) -> dict[str, str]:
    return caption_files.read(root).texts


LINE = ["caption", "3_zorp", "--with", "wd14", "--set", "general=0", "--set", "character=1", "--batch", "2"]


def new(place: Workspace) -> dict[str, str]:
    """What the tagger says of each picture, in the options of LINE."""
    from trainpilot.engine.probe import choose_device

    found = captioners.find("wd14")
    path, _ = captioners.locate(place, found)
    loaded = found.load(path, choose_device(), captioners.check(found, {"general": 0, "character": 1}))
    names = sorted(path.name for path in folder(place).glob("*.png"))
    return {name: loaded.caption([Image.open(folder(place) / name)], lambda: None)[0] for name in names}


def appended(old: str, more: str) -> str:
    return ", ".join([*old.split(", "), *(tag for tag in more.split(", ") if tag not in old.split(", "))])


@pytest.mark.parametrize("mode", ["keep", "append", "replace"])
def test_captions_are_kept_appended_to_or_replaced_and_undo_brings_back_every_byte(place: Workspace, mode: str) -> None:
    made, before, old = new(place), state(folder(place)), texts(folder(place))
    assert cli.main([*LINE, "--trigger", "zorp", f"--{mode}"]) == ExitCode.DONE
    expected = {name: f"zorp, {text}" for name, text in made.items()}
    for name, text in old.items():
        expected[name] = {"keep": text, "append": f"zorp, {appended(text, made[name])}", "replace": expected[name]}[
            mode
        ]
    assert texts(folder(place)) == expected
    if mode != "keep":
        data = (folder(place) / "p0.txt").read_bytes()
        assert data.startswith(b"\xef\xbb\xbf") and data.endswith(b"\r\n")
    Journal(folder(place).resolve()).undo()
    assert state(folder(place)) == before


def test_every_choice_is_said_and_every_caption_is_an_event(place: Workspace) -> None:
    assert cli.main(LINE) == ExitCode.DONE
    [path] = jobdirs(place)
    events = history(path / "events.jsonl")
    said = " ".join(str(event["text"]) for event in events if event["kind"] == "notice")
    for word in ("wd-swinv2-tagger-v3", "device: cpu", "2 pictures at once, as given", "3 captions are kept"):
        assert word in said
    shown = {event["picture"]: event["text"] for event in events if event["kind"] == "caption"}
    assert shown == {
        name: text for name, text in texts(folder(place)).items() if name not in ("p0.png", "p1.png", "p2.png")
    }
    job = JobDir.open(path, place)
    assert job.job is not None and job.job.reason.startswith("4 captions written, 3 kept, undo with:")


def test_a_set_is_made_without_touching_a_file(place: Workspace) -> None:
    made, before = new(place), state(folder(place))
    assert cli.main([*LINE, "--to-set", "tags"]) == ExitCode.DONE
    assert state(folder(place)) == before
    assert caption_sets.read(folder(place).resolve(), "tags") == made
    assert cli.main([*LINE, "--to-set", "tags"]) == ExitCode.BAD_INPUT  # before the first picture, not after the last
    assert (
        not list(jobdirs(place)[-1].glob("captions.jsonl")) or not (jobdirs(place)[-1] / "captions.jsonl").read_text()
    )


def as_metadata(place: Workspace) -> Path:
    """The same dataset with its captions in metadata.jsonl."""
    root = folder(place)
    rows = []
    for number in range(COUNT):
        caption = root / f"p{number}.txt"
        rows.append({"file_name": f"p{number}.png", "text": f"old {number}" if number < 3 else None, "n": number})
        caption.unlink(missing_ok=True)
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


class Stops:
    """Wraps the tagger: after some pictures a stop is asked for; counts the pictures it was shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Workspace, after: int) -> None:
        self.shown = 0
        real: Callable[..., list[str]] = Wd14.caption

        def caption(tagger: Wd14, images: Sequence[Image.Image], look: Callable[[], None]) -> list[str]:
            if self.shown == after:
                os.kill(os.getpid(), signal.SIGTERM)
            self.shown += len(images)
            return real(tagger, images, look)

        monkeypatch.setattr(Wd14, "caption", caption)


@pytest.mark.parametrize("layout", ["files", "metadata"])
def test_a_stopped_job_goes_on_and_captions_nothing_twice(
    place: Workspace, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layout == "metadata":
        as_metadata(place)
    before, made, old = state(folder(place)), new(place), texts(folder(place))
    stops = Stops(monkeypatch, place, after=4)
    assert cli.main([*LINE, "--append"]) == ExitCode.PREEMPTED
    [path] = jobdirs(place)
    assert sum(text not in old.values() for text in texts(folder(place)).values()) == 4
    assert cli.main(["run", str(path)]) == ExitCode.DONE
    assert stops.shown == COUNT + 2  # the batch that the stop ended was not finished
    whole = {name: appended(old[name], text) if old.get(name) else text for name, text in made.items()}
    assert texts(folder(place)) == whole
    journal = Journal(folder(place).resolve())
    assert len(journal.edits()) == 1
    journal.undo()
    assert state(folder(place)) == before


@pytest.mark.parametrize("survives", [0, 1, 3])
def test_a_killed_job_goes_on_from_what_is_on_disk(place: Workspace, survives: int) -> None:
    made, before, old = new(place), state(folder(place)), texts(folder(place))
    job = JobDir.create(
        place,
        "caption",
        {
            "dataset": "3_zorp",
            "captioner": "wd14",
            "options": {"general": 0, "character": 1},
            "mode": "append",
            "batch": 3,
        },
        queue=False,
    )
    child = os.fork()
    if child == 0:
        put, done = caption_journal._put, 0

        def dying(file: Path, data: bytes | None) -> None:
            nonlocal done
            if done == survives:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            put(file, data)

        caption_journal._put = dying
        os._exit(cli.main(["run", str(job.path)]))
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    assert texts(folder(place)) == {
        name: appended(old[name], text) if name in old else text for name, text in made.items()
    }
    Journal(folder(place).resolve()).undo()
    assert state(folder(place)) == before


def test_a_caption_that_a_person_wrote_meanwhile_stays(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., list[str]] = Wd14.caption

    def caption(tagger: Wd14, images: Sequence[Image.Image], look: Callable[[], None]) -> list[str]:
        (folder(place) / "p5.txt").write_text("by hand")
        return real(tagger, images, look)

    monkeypatch.setattr(Wd14, "caption", caption)
    assert cli.main(LINE) == ExitCode.DONE
    assert texts(folder(place))["p5.png"] == "by hand"


def test_a_broken_picture_is_named_and_the_others_are_captioned(place: Workspace) -> None:
    (folder(place) / "p4.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert cli.main(LINE) == ExitCode.DONE
    assert set(texts(folder(place))) == {f"p{n}.png" for n in range(COUNT)} - {"p4.png"}
    job = JobDir.open(jobdirs(place)[0], place)
    assert job.job is not None and "1 pictures skipped" in job.job.reason


def test_a_missing_model_is_fetched_first(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    model = captioners.find("wd14").MODELS[1]
    source = place.models / "captioners" / "wd-swinv2-tagger-v3"
    files = {path.name: path.read_bytes() for path in source.iterdir()} | {"pytorch_model.bin": b"a pickle"}
    with serving() as site:
        monkeypatch.setenv(web.LOCAL_FOR_TESTS, site.place)
        monkeypatch.setenv(web.HUB_VARIABLE, site.url)
        site.repository(model.repo, files, large=(".onnx",))
        assert cli.main([*LINE, "--model", model.name]) == ExitCode.DONE
    fetched = place.models / "captioners" / model.name
    assert sorted(path.name for path in fetched.iterdir()) == ["model.onnx", "selected_tags.csv"]
    assert len(texts(folder(place))) == COUNT


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (["--set", "general=2"], "wd14.general"),
        (["--set", "general"], "--set"),
        (["--trigger", ","], "caption"),
        (["--with", "oracle"], "captioner"),
        (["--batch", "0"], "caption.batch"),
        (["--to-set", "../a"], "set"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    place: Workspace, more: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(folder(place))
    assert cli.main([*LINE, *more, "--json"]) == ExitCode.BAD_INPUT
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["where"] == where
    assert state(folder(place)) == before


def test_the_list_shows_models_and_which_are_here(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["caption", "--list", "--json"]) == ExitCode.DONE
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows if row["path"]} == {"wd-swinv2-tagger-v3"}
    assert {row["captioner"] for row in rows} == set(captioners.captioners())
