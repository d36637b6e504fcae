"""Drafts of the wizard: what a person has chosen so far, one JSON file each in config/drafts of the workspace.

Only this module writes them, under one lock, so two tabs cannot lose one another's fields: a change names the fields
it changes. Used by the Train page and the API.
"""

from __future__ import annotations

import fcntl
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlpilot.training_types import training_type
from controlpilot.views.fields import field_of
from controlpilot.views.refusals import NotFound
from trainpilot.config.describe import dataset_settings, settings, unknown_key
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json, write_json
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

MOST_DRAFTS = 200
_ID = re.compile(r"[a-z0-9]{12}")
Short = Annotated[str, Field(max_length=400)]
Path_ = Annotated[str, Field(max_length=4096)]
Value = Annotated[str, Field(max_length=20_000)]


class Choices(BaseModel):
    """What a run is made from. settings: dotted path -> text as `--set` reads it; kind: a training type or empty."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str, Field(max_length=40)] = ""
    profile: Short = "standard"
    datasets: Annotated[list[Path_], Field(max_length=50)] = []
    base: Path_ = ""
    name: Annotated[str, Field(max_length=100)] = ""
    settings: Annotated[dict[Short, Value], Field(max_length=400)] = {}
    price_per_hour: Annotated[float | None, Field(ge=0, le=10_000)] = None


class Draft(Choices):
    """Choices with a place on disk. origin: where they came from, in words; times are unix seconds."""

    id: str
    created: float
    updated: float
    origin: str = ""
    step: Annotated[int, Field(ge=1, le=6)] = 1


class Change(BaseModel):
    """A change of a draft: what is None stays. settings: a None value gives that setting back to what decides it."""

    model_config = ConfigDict(extra="forbid")
    kind: Annotated[str, Field(max_length=40)] | None = None
    profile: Short | None = None
    datasets: Annotated[list[Path_], Field(max_length=50)] | None = None
    base: Path_ | None = None
    name: Annotated[str, Field(max_length=100)] | None = None
    settings: Annotated[dict[Short, Value | None], Field(max_length=400)] | None = None
    price_per_hour: Annotated[float | None, Field(ge=0, le=10_000)] = None
    step: Annotated[int, Field(ge=1, le=6)] | None = None


class Drafts:
    """The drafts of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.root / "config" / "drafts"

    def all(self) -> list[Draft]:
        """Every readable draft, the last changed first; a damaged file is left where it is."""
        if not self.folder.is_dir():
            return []
        found = [draft for path in self.folder.glob("*.json") if (draft := self._load(path)) is not None]
        return sorted(found, key=lambda draft: -draft.updated)

    def read(self, ident: str) -> Draft:
        """One draft. Raises NotFound."""
        draft = self._load(self._path(ident))
        if draft is None:
            raise self._missing(ident)
        return draft

    def create(self, choices: Choices, origin: str = "") -> Draft:
        """Keep new choices. Raises PilotError for an unknown setting or type, or where there are too many drafts."""
        check_writable(self.workspace)
        with self._lock():
            if len(self.all()) >= MOST_DRAFTS:
                raise PilotError(
                    "drafts", f"{MOST_DRAFTS} kept", f"at most {MOST_DRAFTS}", "Delete drafts that you do not need."
                )
            now = time.time()
            ident = secrets.token_hex(6)
            draft = Draft(**choices.model_dump(), id=ident, created=now, updated=now, origin=origin)
            _check(draft)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self._path(ident), {"schema": 1, **draft.model_dump()})
        return draft

    def change(self, ident: str, change: Change) -> Draft:
        """Apply a change and keep the draft. Raises NotFound, and PilotError for an unknown setting or type."""
        check_writable(self.workspace)
        with self._lock():
            draft = self.read(ident)
            given = change.model_dump(exclude_unset=True)
            changed = given.pop("settings", None) or {}
            fields = {key: value for key, value in given.items() if value is not None or key == "price_per_hour"}
            if "datasets" in fields:
                draft.settings = moved_settings(draft.settings, draft.datasets, fields["datasets"])
            kept = draft.settings | {path: text for path, text in changed.items() if text is not None}
            kept = {path: text for path, text in kept.items() if changed.get(path, "") is not None}
            new = Draft.model_validate(draft.model_dump() | fields | {"settings": kept, "updated": time.time()})
            _check(new)
            write_json(self._path(ident), {"schema": 1, **new.model_dump()})
        return new

    def discard(self, ident: str) -> Path:
        """Move a draft to the trash; returns where it lies. Raises NotFound."""
        from controlpilot.views.trash import Trash

        with self._lock():
            path = self._path(ident)
            if not path.is_file():
                raise self._missing(ident)
            return Trash(self.workspace).move([path], f"draft {ident}").files[0].kept

    def _path(self, ident: str) -> Path:
        if not _ID.fullmatch(ident):
            raise self._missing(ident)
        return self.folder / f"{ident}.json"

    def _missing(self, ident: str) -> NotFound:
        return NotFound("draft", ident[:40], "a draft of this workspace", "Open the Training tab: it lists them.")

    def _load(self, path: Path) -> Draft | None:
        value = read_json(path)
        if value is None or value.pop("schema", None) != 1 or value.get("id") != path.stem:
            return None
        try:
            return Draft.model_validate(value)
        except ValidationError:
            return None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check(draft: Choices) -> None:
    """Refuse what no form can show: an unknown type, and settings that do not exist (with what was meant)."""
    if draft.kind:
        training_type(draft.kind)
    for path in draft.settings:
        known_table = any(path.startswith(f"{table}.") for table in ("network.block_ranks", "optimizer.args"))
        if field_of(path) is None and not known_table:
            parent, _, key = path.rpartition(".")
            where = dataset_settings() if parent.startswith("datasets") else settings()
            inside = [name.rpartition(".")[2] for name in where if not parent or name.startswith(f"{parent}.")]
            raise PilotError(path, "an unknown setting", "a setting of the schema", unknown_key(
                f"{parent}." if parent else "", key, inside))  # fmt: skip


def moved_settings(kept: Mapping[str, str], before: list[str], after: list[str]) -> dict[str, str]:
    """Settings of single datasets (`datasets.1.repeats`) follow their dataset when the list changes."""
    found: dict[str, Any] = {}
    for path, text in kept.items():
        head, _, rest = path.partition(".")
        number, _, inner = rest.partition(".")
        if head != "datasets" or not number.isdigit():
            found[path] = text
            continue
        place = int(number)
        if place < len(before) and before[place] in after:
            found[f"datasets.{after.index(before[place])}.{inner}"] = text
        elif len(before) == len(after) == 1:
            found[path] = text  # another folder in the only place: its trigger and repeats are for the person to judge
    return found
