"""Models that can be fetched by name: ours in catalogue.toml, a person's own in the workspace's config/models/*.toml.

Used by the Models page and its API; a download of an entry is a job with `params`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainpilot.errors import PilotError
from trainpilot.models.web import hub
from trainpilot.workspace import Workspace

FILE = Path(__file__).with_name("catalogue.toml")
GB = 10**9


class Item(BaseModel):
    """One entry. Either repo with files, or url with name; own: from the workspace."""

    model_config = ConfigDict(extra="forbid")

    name: str
    label: str = Field(max_length=200)
    kind: Literal["base", "vae", "text_encoder", "lora", "other"] = "base"
    family: str = ""
    repo: str = ""
    revision: str = "main"
    files: list[str] = []
    url: str = ""
    sha256: str = ""
    to: str = ""
    size_bytes: int = Field(0, ge=0, description="As published, to plan with")
    licence: str = ""
    gated: bool = False
    about: str = ""
    own: bool = False

    @property
    def page(self) -> str:
        """Where the model is described, and a gated one's licence accepted."""
        return f"{hub()}/{self.repo}" if self.repo else self.url

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the job `download`."""
        if self.repo:
            given = {"repo": self.repo, "revision": self.revision, "files": self.files}
        else:
            given = {"url": self.url, "sha256": self.sha256}
        return given | {"to": self.to, "title": self.label}

    def place(self, workspace: Workspace) -> Path:
        """The folder it goes to."""
        return workspace.models / (self.to or self.repo.rpartition("/")[2])


def catalogue(workspace: Workspace | None = None) -> tuple[list[Item], list[PilotError]]:
    """All entries, ours first, and what is wrong with a person's own; an own entry replaces ours of the same name."""
    found = {item.name: item for item in _read(FILE, own=False)}
    problems = []
    folder = workspace.root / "config" / "models" if workspace else None
    for path in sorted(folder.glob("*.toml")) if folder and folder.is_dir() else ():
        try:
            found |= {item.name: item for item in _read(path, own=True)}
        except PilotError as error:
            problems.append(error)
    return list(found.values()), problems


def find(workspace: Workspace, name: str) -> Item:
    """An entry by name; PilotError lists those there are."""
    items, _ = catalogue(workspace)
    for item in items:
        if item.name == name:
            return item
    raise PilotError("catalogue", name, ", ".join(item.name for item in items), "Choose one of these.")


def _read(path: Path, *, own: bool) -> list[Item]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return [_item(name, table, own) for name, table in tables.items()]
    except (OSError, ValueError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        given = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise PilotError(path, given, "tables of models", "Correct the file, or copy an entry of ours.") from error


def _item(name: str, table: Any, own: bool) -> Item:
    item = Item.model_validate({**table, "name": name, "own": own})
    if bool(item.repo) == bool(item.url):
        raise ValueError(f"{name} needs either repo or url")
    return item
