"""Steps from one schema of configuration files to the next. Used whenever a file is read.

Schema 0 is the pre-release format: a single table `[dataset]` where schema 1 has `[[datasets]]`, and no `schema`
key was written. A step takes the tables of its version and returns those of the next; it never touches the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainpilot.config.schema import SCHEMA_VERSION
from trainpilot.errors import PilotError

Tables = dict[str, Any]


def _single_dataset(tables: Tables) -> Tables:
    """0 -> 1: `[dataset]` becomes the only entry of `[[datasets]]`."""
    changed = {key: value for key, value in tables.items() if key != "dataset"}
    if "dataset" in tables:
        changed["datasets"] = [tables["dataset"]]
    return changed


STEPS: dict[int, Callable[[Tables], Tables]] = {0: _single_dataset}


def migrate(path: Path, tables: Tables) -> Tables:
    """Tables of any known schema -> those of the present one, without the `schema` key. path is for messages."""
    rest = dict(tables)
    guess = 0 if "dataset" in rest and "datasets" not in rest else SCHEMA_VERSION
    version = rest.pop("schema", guess)
    if type(version) is not int or version < 0:
        raise PilotError(f"{path}: schema", version, f"0 to {SCHEMA_VERSION}", f"Write schema = {SCHEMA_VERSION}.")
    if version > SCHEMA_VERSION:
        raise PilotError(
            f"{path}: schema",
            f"{version}, from a newer TrainPilot",
            f"up to {SCHEMA_VERSION}",
            "Update TrainPilot, or make the configuration anew with this version.",
        )
    for number in range(version, SCHEMA_VERSION):
        rest = STEPS[number](rest)
    return rest
