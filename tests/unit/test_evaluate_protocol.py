"""The protocol: its files are whole, prompts are filled, subjects are found, and mistakes are named."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from trainpilot.errors import PilotError
from trainpilot.evaluate import protocol
from trainpilot.evaluate.protocol import FOLDER, GROUPS, Protocol, Subject
from trainpilot.workspace import Workspace

FILES = sorted(FOLDER.glob("protocol*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_protocol_of_ours_is_whole(path: Path) -> None:
    found = protocol.read(path)
    assert {0.5, 0.7, 0.8, 0.9, 1.0, 1.2} <= set(found.strengths) and len(found.seeds) >= 3
    asked = found.filled(Subject("ohwx", "woman"))
    assert {one.group for one in asked} <= set(GROUPS)
    texts = [one.text for one in asked]
    assert len(set(texts)) == len(texts)
    for one in asked:
        assert not set("{}") & set(one.text + one.plain + one.means)
        assert ("ohwx" in one.text) == (one.group != "control")
        assert "ohwx" not in one.plain + one.means and one.plain.strip(" ,")


def test_the_demo_s_own_pictures_are_not_asked_for() -> None:
    from scripts.pilot_tiny.demo_data import TRAINED

    for one in protocol.read(FOLDER / "protocol-pilot-tiny.toml").filled(Subject("zorp", "circle")):
        for colour, size, position, background in TRAINED:
            where = "in the center" if position == "center" else f"at the {position},"
            wanted = (f"{size}, {colour},", where, f"{background} background")
            assert not all(words in one.text for words in wanted)


def test_the_base_decides_unless_one_is_named(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    assert protocol.choose(place, None, "pilot-tiny")[0].name == "pilot-tiny"
    assert protocol.choose(place, None, "sdxl-base")[0].name == "standard"
    assert protocol.choose(place, "standard", "pilot-tiny")[0].name == "standard"
    own = tmp_path / "config" / "protocols"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text((FOLDER / "protocol.toml").read_text().replace('"standard"', '"mine"'))
    assert protocol.choose(place, "mine", "pilot-tiny")[0].name == "mine"
    with pytest.raises(PilotError) as caught:
        protocol.choose(place, "yours", "pilot-tiny")
    assert "mine" in caught.value.allowed and "pilot-tiny" in caught.value.allowed


@pytest.mark.parametrize(
    ("captions", "folder", "expected"),
    [
        (["zorp, large, red"] * 10, "10_zorp", ("zorp", "circle")),
        (["ohwx woman, smiling", "ohwx woman, side view", "ohwx woman"], "x", ("ohwx", "woman")),
        (["ohwx woman in a car", "ohwx woman on a hill"], "x", ("ohwx", "woman")),
        ([*["sks dog"] * 9, "a park"], "5_dog", ("sks", "dog")),
        (["a park", "a hill"], "10_john_person", ("john", "person")),
        ([], "10_john", ("john", "circle")),
        (["a red house", "a red car"], "houses", ("houses", "circle")),
    ],
)
def test_a_subject_is_found_in_captions_or_the_folder_s_name(
    captions: list[str], folder: str, expected: tuple[str, str]
) -> None:
    found = protocol.subject_of(captions, folder, protocol.read(FOLDER / "protocol-pilot-tiny.toml"))
    assert (found.trigger, found.class_word) == expected


def test_what_is_given_wins() -> None:
    own = protocol.read(FOLDER / "protocol.toml")
    found = protocol.subject_of(["ohwx woman"] * 3, "x", own, trigger="mia", class_word="girl")
    assert (found.trigger, found.class_word, found.source) == ("mia", "girl", "given")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a photo of {trigger} {class}", "a photo of woman"),
        ("{trigger}, large, red", "woman, large, red"),
        ("{trigger} on a hill", "woman on a hill"),
        ("a hill, {trigger}", "a hill, woman"),
        ("a bowl of fruit", "a bowl of fruit"),
    ],
)
def test_the_base_is_asked_without_the_trigger(text: str, plain: str) -> None:
    assert Subject("ohwx", "woman").plain(text) == plain


def document() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "protocol.toml").read_text())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [1]}, "seeds"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"reference": 0.33}, "reference"),
        ({"colour": "red"}, "colour"),
        ({"prompts": [{"group": "likeness", "text": "{trigger}"}]}, "groups likeness, control"),
        ({"prompts": [{"group": "mood", "text": "{trigger}"}]}, "prompts.0.group"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_wrong_protocol_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    import tomli_w

    path = tmp_path / "own.toml"
    path.write_text(tomli_w.dumps(document() | changes))
    with pytest.raises(PilotError) as caught:
        protocol.read(path)
    assert words in caught.value.message and str(path) in caught.value.where


def test_a_control_names_no_trigger() -> None:
    given = document()
    given["prompts"].append({"group": "control", "text": "a photo of {trigger}"})
    with pytest.raises(ValueError, match="controls without"):
        Protocol.model_validate(given)
