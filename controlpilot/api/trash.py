"""The trash."""

from __future__ import annotations

from pydantic import BaseModel

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views.trash import Entry, Trash

resource = Resource("trash", "What was deleted or replaced, and can be put back")
blueprint = resource.blueprint


class TrashEntry(BaseModel):
    """One deletion. files: where they were, relative to the workspace; when: unix seconds."""

    id: str
    why: str
    when: float
    files: list[str]

    @classmethod
    def of(cls, entry: Entry, trash: Trash) -> TrashEntry:
        files = [str(one.origin.relative_to(trash.root)) for one in entry.files]
        return cls(id=entry.id, why=entry.why, when=entry.when, files=files)


class TrashList(BaseModel):
    """The newest first."""

    entries: list[TrashEntry]


@resource.get("/trash")
def index() -> TrashList:
    """What can be put back."""
    trash = Trash(desk().workspace)
    return TrashList(entries=[TrashEntry.of(entry, trash) for entry in trash.entries()])


@resource.post("/trash/<ident>/restore", refuses=(409,))
def restore(ident: str) -> TrashEntry:
    """Put one entry back, where nothing new has its place."""
    trash = Trash(desk().workspace)
    return TrashEntry.of(trash.restore(ident), trash)
