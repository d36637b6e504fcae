"""Whole files that people use, in every dialect: read, written back, and damaged in two hundred ways."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from trainpilot.config.schema import RunConfig
from trainpilot.dialects import Reading, dialects, recognise
from trainpilot.dialects.diffusers_yaml import NAMES
from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent / "data" / "dialects"
TEMPLATE = Path(__file__).parents[2] / "workspace-template"
GUIDES = {  # the guides' own files, which a new workspace starts with
    TEMPLATE / "config" / "kohya" / "first_lora.json": "kohya_json",
    TEMPLATE / "training_config.yaml": "diffusers_yaml",
}
# Files that others name, and that are no configuration of their own here.
NAMED = {"sdxl_prodigy_data.toml", "concepts.json", "samples.json"}
FILES = [*sorted(path for path in FOLDER.glob("*/*") if path.name not in NAMED), *GUIDES]
# Where data lie, how our files are called and what a library would take anyway is written out in our own way.
PLACES = (
    "optimizer_args",
    "sample_prompts",
    "sample.prompts",
    "sample.samples",
    "train.optimizer_params",
    "type",
    "use_8bit_adam",
    "optimizer_type",
    "train_data_dir",
    "concepts",
    "concept_file_name",
    "dataset_name",
    "instance_data_dir",
    "center_crop",
    "output_dir",
    "reg_data_dir",
    "dataset_config",
    "config_file",
    "output_name",
    "additional_parameters",
)


def read(path: Path, text: str | None = None) -> Reading:
    given = path.read_text() if text is None else text

    def nearby(name: str) -> str | None:
        beside = path.parent / Path(name).name
        return beside.read_text() if beside.is_file() else None

    return dialects()[dialect_of(path)].read(given, nearby)


def dialect_of(path: Path) -> str:
    return GUIDES.get(path, path.parent.name)


def test_every_dialect_has_at_least_two_files() -> None:
    counts = {name: sum(dialect_of(path) == name for path in FILES) for name in dialects()}
    assert {name: count for name, count in counts.items() if count < 2} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_dialect_of_a_file_is_recognised(path: Path) -> None:
    found = recognise(path.read_text())
    assert dialect_of(path) == found.NAME


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_key_is_booked_exactly_once(path: Path) -> None:
    reading = read(path)
    booked = [
        item.key for group in (reading.mapped, reading.approximated, reading.refused, reading.idle) for item in group
    ]
    assert sorted(booked) == sorted(set(booked))
    if path.suffix == ".json" and dialect_of(path) == "kohya_json":
        assert set(json.loads(path.read_text())) <= set(booked)
    assert all(item.reason for item in (*reading.approximated, *reading.refused, *reading.idle))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_theirs_to_ours_to_theirs_keeps_every_mapped_key(path: Path) -> None:
    first = read(path)
    known = dialects()[dialect_of(path)]
    config = RunConfig.model_validate(first.config)
    if config.model.family == "auto":
        config.model.family = "sd15"
    written = known.write(config)
    second = known.read(written.text, written.beside.get)
    again = {
        NAMES.get(item.key, item.key): item.value
        for name in ("mapped", "approximated", "idle")
        for item in getattr(second, name)
    }
    lost = {
        item.key: (item.value, again.get(item.key))
        for item in first.mapped
        if not item.key.startswith((*PLACES, "general.", "datasets."))
        and alike(again.get(NAMES.get(item.key, item.key))) != alike(item.value)
    }
    assert lost == {}
    kept = {item.key for item in written.mapped}
    assert settings_of(config, kept) == settings_of(RunConfig.model_validate(second.config), kept)


def alike(value: object) -> object:
    """Names of optimizers are taken in any case, and number formats have two names."""
    formats = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}
    return formats.get(value.lower(), value.lower()) if isinstance(value, str) else value


def settings_of(config: RunConfig, paths: set[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in paths:
        value: object = config
        for key in path.split("."):
            value = value[int(key)] if isinstance(value, list) else getattr(value, key)
        found[path] = value
    return found


def damaged(text: str, draw: random.Random) -> str:
    """A file as a bad disk, a wrong editor or an attacker would leave it."""
    place = draw.randrange(len(text))
    kind = draw.randrange(9)
    if kind == 0:
        return text[:place]
    if kind == 1:
        return (
            text[:place]
            + draw.choice(['"', "{", "[", "\0", "\\ud800", ":", "- ", "\t", "&a *a", "'", "--"])
            + text[place:]
        )
    if kind == 2:
        cut = draw.randrange(len(text))
        return text[: min(place, cut)] + text[max(place, cut) :]
    if kind == 3:
        return draw.choice(["[", "{", '{"a":', "a: {", "- "]) * draw.choice([30, 2000]) + text
    if kind == 4:
        return text.replace(": ", ": !!python/object/apply:os.system ", 1).replace(" = ", " = !!x ", 1)
    lines = text.splitlines(keepends=True)
    number = draw.randrange(len(lines))
    head, mark, _ = lines[number].partition("=" if "=" in lines[number] else ":")
    wrong = draw.choice(["-1", "1e999", '"x"', "[]", "{}", "true", "null", '[[1, "a"]]', '{"a": {"b": 1}}', "9" * 400])
    if kind < 8 and mark:
        comma = "," if lines[number].rstrip().endswith(",") else ""
        lines[number] = f"{head}{mark} {wrong}{comma}\n"
    else:
        lines[number] = lines[number] * draw.choice([2, 50])
    return "".join(lines)


@pytest.mark.parametrize("name", list(dialects()))
def test_damaged_files_give_errors_and_never_a_traceback(name: str) -> None:
    draw = random.Random(name)
    files = [path for path in FILES if dialect_of(path) == name]
    refused = 0
    for _ in range(200):
        path = draw.choice(files)
        text = damaged(path.read_text(), draw)
        try:
            reading = read(path, text)
        except PilotError as error:
            refused += 1
            assert error.where and error.allowed and error.remedy
        else:
            RunConfig.model_validate(reading.config)
        for known in dialects().values():
            assert 0 <= known.sniff(text) <= 1
    assert refused > 50
