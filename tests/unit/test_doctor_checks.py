"""The checks: each finds what it is for, in made datasets, and a sound dataset passes them all."""

import importlib
import shutil
from pathlib import Path

import pytest
from bad_pictures import BAD, jpeg, scene, write_bad
from PIL import Image, ImageDraw, ImageOps

from trainpilot.datasets.buckets import Rules
from trainpilot.datasets.doctor import checks
from trainpilot.datasets.doctor.case import Encoder, Question
from trainpilot.datasets.doctor.report import Report, judge
from trainpilot.datasets.doctor.survey import examine
from trainpilot.datasets.hashes import Memo
from trainpilot.errors import PilotError

RULES = Rules((256, 256), 32, 64, 512)
SOUND = 16


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    """Sixteen sound pictures of three shapes, drawn once."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(SOUND):
        (folder / f"p{number:02d}.jpg").write_bytes(
            jpeg(scene(number, [(256, 256), (224, 288), (320, 208)][number % 3]))
        )
    return folder


@pytest.fixture
def dataset(scenes, tmp_path) -> Path:
    """A dataset nothing is wrong with."""
    folder = tmp_path / "10_ohwx"
    shutil.copytree(scenes, folder)
    places = "beach forest kitchen street garden library stadium harbour".split()
    for number, path in enumerate(sorted(folder.glob("*.jpg"))):
        text = (
            f"ohwx, seen from the {['front', 'left', 'right'][number % 3]}, in a {places[number % 8]}, number {number}"
        )
        path.with_suffix(".txt").write_text(text)
    return folder


def report_on(folder: Path, **asked) -> Report:
    with Memo(folder.parent / "memo.sqlite") as memo:
        return judge(examine(folder, Question(RULES, "256 px", **asked), memo))


def found(folder: Path, check: str, **asked) -> list[tuple[str, str, list[str]]]:
    """(level, title, files) of what a check says."""
    report = report_on(folder, **asked)
    return [
        (one.finding.level, one.finding.title, [place.file for place in one.finding.where])
        for one in report.judged
        if one.check == check
    ]


def caption(folder: Path, number: int, text: str | bytes) -> str:
    path = folder / f"p{number:02d}.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path.name


def test_a_sound_dataset_has_no_warning_and_the_full_score(dataset):
    report = report_on(dataset, purpose="object", triggers=("ohwx",))
    assert [one.finding.title for one in report.judged if one.finding.level != "note"] == []
    assert report.score == 100
    assert {name for name, _ in report.passed} == set(checks.checks())


def test_every_bad_picture_is_named_by_its_check(tmp_path):
    write_bad(tmp_path / "bad")
    report = report_on(tmp_path / "bad")
    named = {
        name: {one.check for one in report.judged if any(place.file == name for place in one.finding.where)}
        for name in [*BAD, "good.jpg"]
    }
    assert {name: check for name, (_, check) in BAD.items() if check not in named[name]} == {}
    assert named["good.jpg"] <= {"captions_missing"}
    assert report.errors and report.score < 50


def test_missing_empty_and_unreadable_captions(dataset):
    (dataset / "p00.txt").unlink()
    caption(dataset, 1, "  \n")
    caption(dataset, 2, b"\xff\x00\x81\x00\x00nothing")
    caption(dataset, 3, "ohwx, ein Bär".encode("cp1252"))
    says = found(dataset, "captions_missing")
    assert [(level, files) for level, _, files in says] == [("warning", ["p00.jpg"]), ("warning", ["p01.txt"])]
    says = found(dataset, "captions_unreadable")
    assert [(level, files) for level, _, files in says] == [("error", ["p02.txt"]), ("note", ["p03.txt"])]


def test_captions_that_say_the_same(dataset):
    for number in (1, 4):
        caption(dataset, number, "ohwx, on a  Beach")
    caption(dataset, 5, "ohwx, on a beach\n")
    assert [files for _, _, files in found(dataset, "captions_identical")] == [["p01.jpg", "p04.jpg", "p05.jpg"]]


def test_captions_longer_than_the_encoder_reads(dataset):
    name = caption(dataset, 3, "ohwx, " + "very " * 40)
    encoders = (Encoder("text_encoder", "clip", 30, lambda text: len(text.split())),)
    says = found(dataset, "caption_length", encoders=encoders)
    assert [(level, files) for level, _, files in says] == [("warning", [name])]
    assert "30 tokens" in says[0][1]
    assert not found(dataset, "caption_length")


def test_the_trigger_is_found_and_where_it_is_missing_or_late(dataset):
    missing, late = caption(dataset, 3, "a bear in a forest"), caption(dataset, 4, "a bear, ohwx, by the sea")
    caption(dataset, 5, "OHWX, as if shouted")
    caption(dataset, 6, "ohwxy is another word")
    assert report_on(dataset).case.trigger_source == "found"
    for asked in ({}, {"triggers": ("ohwx",)}):
        assert [files for _, _, files in found(dataset, "trigger", **asked)] == [[missing, "p06.txt"], [late]]
    fix = next(one for one in report_on(dataset).judged if one.check == "trigger")
    assert fix.finding.fix.kind == "trigger" and fix.finding.fix.options == {"trigger": "ohwx"}


def test_the_number_of_trigger_words_is_constant(dataset):
    assert not found(dataset, "trigger_words", triggers=("ohwx",))
    twice = caption(dataset, 2, "ohwx, ohwx in a mirror")
    assert [files for _, _, files in found(dataset, "trigger_words", triggers=("ohwx",))] == [[twice]]
    one_of_two = found(dataset, "trigger_words", triggers=("ohwx", "forest"))
    assert one_of_two, "some captions have the second trigger and some do not"


def test_an_everyday_word_as_trigger(dataset):
    for path in dataset.glob("*.txt"):
        path.write_text(path.read_text().replace("ohwx", "dog"))
    assert any("everyday" in title for _, title, _ in found(dataset, "trigger", triggers=("dog",)))


def test_words_of_opinion_and_traits(dataset):
    name = caption(dataset, 2, "ohwx, a beautiful cave of nicety")
    says = found(dataset, "subjective")
    assert [files for _, _, files in says] == [[name]]
    for number, hair in enumerate(["brown hair", "blonde wavy hair", "Brown hair"]):
        caption(dataset, number, f"ohwx, {hair}, by a red door")
    says = found(dataset, "traits", purpose="face")
    assert says[0][0] == "warning" and "brown in 2, blond in 1" in says[0][1]
    assert not found(dataset, "traits", purpose="style")


@pytest.mark.parametrize(
    ("purpose", "count", "level"),
    [("face", 16, None), ("face", 12, "note"), ("face", 6, "warning"), ("style", 16, "note"), ("concept", 9, "warning"),
     ("object", 12, None), ("", 12, None), ("", 3, "warning")],
)  # fmt: skip
def test_counts_against_the_guides(dataset, purpose, count, level):
    for path in sorted(dataset.glob("*.jpg"))[count:]:
        path.unlink()
    assert [found_level for found_level, _, _ in found(dataset, "number", purpose=purpose)] == (
        [level] if level else []
    )


def test_exact_and_near_duplicates_apart(dataset):
    shutil.copy(dataset / "p00.jpg", dataset / "q0.jpg")
    with Image.open(dataset / "p01.jpg") as image:
        ImageOps.mirror(image.resize((200, 260))).save(dataset / "q1.jpg", quality=60)
    exact, near = found(dataset, "duplicates"), found(dataset, "near_duplicates")
    assert [files for _, _, files in exact] == [["q0.jpg"]]
    assert [files for _, _, files in near] == [["q1.jpg"]]
    (said,) = [one for one in report_on(dataset).judged if one.check == "near_duplicates"]
    assert said.finding.groups == [["p01.jpg", "q1.jpg"]] and "mirrored" in said.finding.where[0].detail


def test_a_mark_in_one_place_of_all_pictures(dataset):
    assert not found(dataset, "overlay")
    for path in dataset.glob("*.jpg"):
        with Image.open(path) as image:
            width, height = image.size
            draw = ImageDraw.Draw(image)
            for step in range(4):
                left = width * (0.68 + 0.07 * step)
                draw.rectangle(
                    (left, height * 0.85, left + width * 0.035, height * 0.95), fill="white", outline="black"
                )
            image.save(path, quality=92)
    says = found(dataset, "overlay")
    assert len(says) == 1 and "at the bottom on the right" in says[0][1]


def test_pictures_of_one_framing(tmp_path):
    folder = tmp_path / "studio"
    folder.mkdir()
    ground = scene(50)
    for number in range(8):
        image = ground.copy()
        ImageDraw.Draw(image).regular_polygon((100 + 8 * number, 128, 20), 5, 20 * number, fill=(200, 30, 20 * number))
        image.save(folder / f"{number}.jpg", quality=92)
    assert any("same framing" in title for _, title, _ in found(folder, "variety"))


def test_shapes(dataset):
    for number, path in enumerate(sorted(dataset.glob("*.jpg"))):
        with Image.open(path) as image:
            image.resize((128 + 24 * number, 512 - 20 * number)).save(path)
    assert any("buckets for" in title for _, title, _ in found(dataset, "aspects"))


def test_concepts_of_different_weight(dataset, scenes):
    project = dataset.parent / "project"
    shutil.copytree(scenes, project / "10_foo")
    shutil.copytree(scenes, project / "1_bar")
    says = found(project, "balance")
    assert len(says) == 1 and "10.0 times" in says[0][1]


# --- depth of folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["outer", "outer/more"])
def test_a_dataset_one_level_too_deep_is_understood(dataset, tmp_path, above):
    inner = tmp_path / "given" / above / "my_pictures"
    inner.parent.mkdir(parents=True)
    (dataset / "images").mkdir()
    for path in list(dataset.glob("p*")):
        path.rename(dataset / "images" / path.name)
    shutil.copytree(dataset, inner)
    report = report_on(tmp_path / "given")
    assert len(report.case.pictures) == SOUND
    assert any("my_pictures" in one.finding.title or "deeper" in one.finding.title for one in report.judged) or (
        report.case.layout.kind == "concepts"
    )


def test_a_part_of_a_dataset_is_understood(dataset, tmp_path):
    whole = tmp_path / "set"
    (whole / "images").mkdir(parents=True)
    (whole / "captions").mkdir()
    for path in dataset.iterdir():
        shutil.copy(path, whole / ("images" if path.suffix == ".jpg" else "captions"))
    for given in (whole, whole / "images", whole / "captions"):
        report = report_on(given)
        assert (len(report.case.pictures), len(report.case.captioned)) == (SOUND, SOUND), given


def test_several_datasets_too_deep_are_refused_with_their_names(dataset, tmp_path):
    for name in ("a/x/y", "b/x/y"):
        shutil.copytree(dataset, tmp_path / "many" / name / "deep")
    with pytest.raises(PilotError) as refused:
        report_on(tmp_path / "many")
    assert "datasets below" in refused.value.given and refused.value.remedy == "Give one of these."


def test_an_empty_folder_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PilotError, match="Put pictures there"):
        report_on(tmp_path / "empty")


# --- adding a check is one file ---------------------------------------------------------------------------------------


def test_a_check_is_one_file(dataset, tmp_path, monkeypatch):
    before = set(checks.checks())
    (tmp_path / "eleventh.py").write_text(
        "from trainpilot.datasets.doctor.findings import Finding\n"
        "TITLE, POINTS, WHY = 'no eleventh', 7.0, 'because'\n"
        "def look(case):\n    yield Finding('there is an eleventh', 'warning')\n"
    )
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(tmp_path)])
    checks.checks.cache_clear()
    try:
        report = report_on(dataset, triggers=("ohwx",))
        assert set(checks.checks()) == before | {"eleventh"}
    finally:
        checks.checks.cache_clear()
    assert [one.finding.title for one in report.judged if one.check == "eleventh"] == ["there is an eleventh"]
    assert report.score == 93 and report.arithmetic()[1] == "- 7 = 7: there is an eleventh"


@pytest.mark.parametrize("name", list(checks.checks()))
def test_a_check_says_what_and_why(name):
    module = importlib.import_module(f"trainpilot.datasets.doctor.checks.{name}")
    assert not module.TITLE[0].isupper() and not module.TITLE.endswith(".")
    assert 0 < module.POINTS <= 60 and module.WHY.endswith(".") and module.__doc__
