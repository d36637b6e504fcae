"""What a person may want to teach: one TOML file each, found by a folder scan. Used by the wizard's first step.

A type says how many pictures the guides recommend (`images`, from and to), what it presets, each with its reason,
and example prompts, where `{trigger}` stands for the trigger word. Its presets lie above the profile and below what
a person sets.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from trainpilot.config.describe import did_you_mean
from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent


class Preset(BaseModel):
    """One setting that a type gives: as `--set` reads it, and why."""

    model_config = ConfigDict(extra="forbid")
    set: str
    value: str
    why: str


class TrainingType(BaseModel):
    """One training type. images: recommended number of pictures; order: place in the list."""

    model_config = ConfigDict(extra="forbid")
    name: str
    label: str
    help: str
    order: int
    images: tuple[int, int] | None = None
    example_trigger: str = ""
    presets: list[Preset] = []
    prompts: list[str] = []
    advice: list[str] = []


@cache
def training_types() -> dict[str, TrainingType]:
    """Every type by name, in the order in which they are offered."""
    found = [
        TrainingType(name=path.stem, **tomllib.loads(path.read_text(encoding="utf-8")))
        for path in FOLDER.glob("*.toml")
    ]
    return {one.name: one for one in sorted(found, key=lambda one: (one.order, one.name))}


def training_type(name: str) -> TrainingType:
    """The type of a name; PilotError lists the types there are."""
    known = training_types()
    if name not in known:
        raise PilotError("type", name, ", ".join(known), did_you_mean(name, known, "Choose one of these."))
    return known[name]
