"""Each captioner with a real, tiny, random model in the published layout: loading, batching, options, stopping."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny_captioners as tiny
import torch
from PIL import Image

from trainpilot import captioners
from trainpilot.captioners import wd14
from trainpilot.engine.probe import choose_device
from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.stop import StopRequested
from trainpilot.workspace import Workspace

MAKERS: dict[str, Callable[[Path], Path]] = {"blip": tiny.blip, "florence2": tiny.florence2, "wd14": tiny.wd14}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


def loaded(name: str, path: Path, **options: object) -> captioners.Loaded:
    found = captioners.find(name)
    device = choose_device(environment={"PILOT_DEVICE": "cpu"})
    return found.load(path, device, captioners.check(found, options))


def pictures() -> list[Image.Image]:
    noise = Image.effect_noise((50, 40), 90).convert("RGB")
    return [Image.new("RGB", (40, 30), "red"), noise, Image.linear_gradient("L").convert("RGB")]


def caption(captioner: captioners.Loaded, images: Sequence[Image.Image]) -> list[str]:
    return captioner.caption(images, lambda: None)


def test_every_captioner_is_tried_here() -> None:
    assert set(captioners.captioners()) == set(MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_a_caption_does_not_depend_on_its_batch(name: str, folders: dict[str, Path]) -> None:
    options = {"general": 0.0} if name == "wd14" else {"beams": 2, "longest": 12}
    captioner = loaded(name, folders[name], **options)
    alone = [caption(captioner, [image])[0] for image in pictures()]
    assert caption(captioner, pictures()) == alone
    assert all(text == text.strip() and text for text in alone)
    assert caption(loaded(name, folders[name], **options), pictures()) == alone


@pytest.mark.parametrize("name", MAKERS)
def test_a_model_is_found_in_its_place_and_named_where_it_is_missing(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    workspace, captioner = Workspace(tmp_path), captioners.find(name)
    model = captioner.MODELS[0]
    with pytest.raises(captioners.NotOnDisk, match=model.name) as missing:
        captioners.locate(workspace, captioner)
    assert missing.value.model is model
    cached = tmp_path / "hub" / "hub" / f"models--{model.repo.replace('/', '--')}" / "snapshots" / ("a" * 40)
    shutil.copytree(folders[name], cached)
    assert captioners.locate(workspace, captioner) == (
        cached.resolve(), f"the default of {captioner.LABEL}, found in the hub's cache",
    )  # fmt: skip
    here = tmp_path / "models" / "captioners" / model.name
    shutil.copytree(folders[name], here)
    assert captioners.locate(workspace, captioner, model.repo)[0] == here.resolve()
    needed = next(file for file in captioner.NEEDS[-1] if (here / file).exists())
    (here / needed).unlink()
    with pytest.raises(PilotError, match=needed):
        captioners.locate(workspace, captioner, str(here))


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_model_is_refused_with_its_path(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folders[name], broken)
    weights = broken / ("model.onnx" if name == "wd14" else "config.json")
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(PilotError, match="broken"):
        loaded(name, broken)


@pytest.mark.parametrize("name", ["blip", "florence2"])
def test_a_pickle_is_never_opened(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(folders[name], copy)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(PilotError):
        loaded(name, copy)


@pytest.mark.parametrize("name", MAKERS)
def test_a_stop_is_noticed_within_a_picture(name: str, folders: dict[str, Path]) -> None:
    captioner = loaded(name, folders[name])
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks > (0 if name == "wd14" else 2):
            raise StopRequested(ExitCode.STOPPED, "enough")

    with pytest.raises(StopRequested):
        captioner.caption(pictures(), look)


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("blip", {"beams": 0}, r"blip\.beams"),
        ("florence2", {"task": "poem"}, r"florence2\.task"),
        ("wd14", {"general": "much"}, r"wd14\.general"),
        ("wd14", {"nonsense": 1}, r"wd14\.nonsense"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, object], place: str) -> None:
    with pytest.raises(PilotError, match=place):
        captioners.check(captioners.find(name), options)


# --- BLIP and Florence-2 ----------------------------------------------------------------------------------------------


def test_blip_goes_on_from_given_words(folders: dict[str, Path]) -> None:
    for text in caption(loaded("blip", folders["blip"], start="a red hill", longest=8), pictures()):
        assert text.startswith("a red hill")


@pytest.mark.parametrize("task", ["short", "detailed", "paragraph"])
def test_florence_is_asked_what_the_task_says(task: str, folders: dict[str, Path]) -> None:
    captioner = loaded("florence2", folders["florence2"], task=task, longest=6)
    asked: list[str] = []
    tokenize = captioner.processor.tokenizer.__class__.__call__  # type: ignore[attr-defined]

    class Watched(captioner.processor.tokenizer.__class__):  # type: ignore[misc, name-defined]
        def __call__(self, text: object, *args: object, **more: object) -> object:
            asked.extend(text if isinstance(text, list) else [str(text)])
            return tokenize(self, text, *args, **more)

    captioner.processor.tokenizer.__class__ = Watched  # type: ignore[attr-defined]
    caption(captioner, pictures()[:1])
    words = {"short": "What does the image describe?", "detailed": "in detail", "paragraph": "with a paragraph"}
    assert any(words[task] in text for text in asked)


# --- the tagger -------------------------------------------------------------------------------------------------------

ORANGE = (220, 130, 20)


def tags(folder: Path, **options: object) -> list[str]:
    return caption(loaded("wd14", folder, **options), [Image.new("RGB", (64, 64), ORANGE)])[0].split(", ")


def test_tags_are_those_whose_probability_reaches_the_threshold(folders: dict[str, Path]) -> None:
    chances = tiny.expected(ORANGE)
    kinds = {name: category for name, category, _ in tiny.TAGS}
    general = sorted((name for name in chances if kinds[name] == 0), key=lambda name: -chances[name])
    for least in (0.0, *(chances[name] for name in general), 1.0):
        wanted = [name for name in general if chances[name] >= least - 1e-6]
        found = tags(folders["wd14"], general=max(0.0, least - 1e-6), character=1.0, underscores=True)
        assert found == (wanted or [""])
    character = next(name for name in chances if kinds[name] == 4)
    found = tags(folders["wd14"], general=1.0, character=chances[character] - 1e-6, underscores=True)
    assert found == [character]


def test_characters_come_first_ratings_last_and_what_is_excluded_not(folders: dict[str, Path]) -> None:
    chances = tiny.expected(ORANGE)
    rating = max(("general", "sensitive"), key=lambda name: chances[name])
    found = tags(folders["wd14"], general=0.0, character=0.0, rating=True, exclude="1girl, long hair", underscores=True)
    assert (found[0], found[-1]) == ("hatsune_miku", rating)
    assert set(found) == {"hatsune_miku", "^_^", "outdoors", rating}
    assert len(tags(folders["wd14"], general=0.0, most=2)) == 2


def test_a_graph_for_one_picture_at_a_time_gives_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    single = tiny.wd14(tmp_path / "single", batch=1)
    many = caption(loaded("wd14", folders["wd14"], general=0.2), pictures())
    assert caption(loaded("wd14", single, general=0.2), pictures()) == many


def test_tags_of_another_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folders["wd14"], mixed)
    rows = (mixed / "selected_tags.csv").read_text().splitlines()
    (mixed / "selected_tags.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(PilotError, match="a number for each tag"):
        loaded("wd14", mixed)
    (mixed / "selected_tags.csv").write_text("no,columns\n1,2\n")
    with pytest.raises(PilotError, match="columns name and category"):
        loaded("wd14", mixed)


@pytest.mark.parametrize("face", ["^_^", "o_o", "(o)_(o)", ">_<", "0_0", "<|>_<|>", "||_||", "+_-", "u_u", "3_3"])
def test_a_face_keeps_its_underscore(face: str) -> None:
    assert wd14.spaced(face) == face


@pytest.mark.parametrize(
    "tag", ["long_hair", "hatsune_miku_(vocaloid)", "x-ray_film", "k-on!_high_school", "d.va_(ow)"]
)
def test_other_tags_get_spaces(tag: str) -> None:
    assert wd14.spaced(tag) == tag.replace("_", " ")


def test_a_picture_is_laid_on_a_white_square_blue_first() -> None:
    pixels = wd14.prepared(Image.new("RGB", (64, 32), ORANGE), 64)
    assert pixels.shape == (64, 64, 3)
    assert pixels[32, 32].tolist() == [20, 130, 220]
    assert pixels[2, 32].tolist() == pixels[61, 32].tolist() == [255, 255, 255]
