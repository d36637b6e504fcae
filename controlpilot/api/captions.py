"""Captions of a dataset as a whole: what can write them, edits of all of them with preview and undo, sets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import captions as view
from controlpilot.views.captions import CaptionsPage, Done, SetRow, Shown
from controlpilot.views.jobs import JobRow

resource = Resource("captions", "Captions of a dataset as a whole")
blueprint = resource.blueprint


class Asked(BaseModel):
    """An edit: one of the page's operations with its parameters, or `use` with {"sets": [names]}."""

    model_config = ConfigDict(extra="forbid")
    do: Annotated[str, Field(max_length=50)]
    params: dict[str, Any] = {}


class Agreed(Asked):
    """An edit to be made. seen: of the preview that a person looked at; the answer is 409 where it is another now."""

    seen: Annotated[str, Field(max_length=64)] = ""


class Turn(BaseModel):
    """leave_changed: leave files as they are that were changed by something else since."""

    model_config = ConfigDict(extra="forbid")
    leave_changed: bool = False


class NewSet(BaseModel):
    """The name of a new set."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=64)]


class Captioned(BaseModel):
    """A captioning. model: none is the captioner's first; options: the captioner's own."""

    model_config = ConfigDict(extra="forbid")
    captioner: Annotated[str, Field(max_length=50)] = "blip"
    model: Annotated[str, Field(max_length=1000)] = ""
    options: dict[str, Any] = {}
    trigger: Annotated[str, Field(max_length=500)] = ""
    mode: Literal["keep", "append", "replace"] = "keep"
    to_set: Annotated[str, Field(max_length=64)] = ""
    batch: Annotated[int, Field(ge=1, le=256)] | None = None


@resource.get("/datasets/<name>/caption-tools")
def overview(name: str) -> CaptionsPage:
    """Operations, captioners, tags, sets and edits of a dataset."""
    return view.page(desk().workspace, name)


@resource.post("/datasets/<name>/caption-tools/preview")
def preview(name: str, body: Asked) -> Shown:
    """What an edit would change. Nothing is written."""
    return view.preview(desk().workspace, name, body.do, body.params)


@resource.post("/datasets/<name>/caption-tools/edit", refuses=(409,))
def edit(name: str, body: Agreed) -> Done:
    """Change all captions, as one edit that can be undone."""
    return view.edit(desk().workspace, name, body.do, body.params, body.seen)


@resource.post("/datasets/<name>/caption-tools/undo")
def undo(name: str, body: Turn) -> Done:
    """Take the newest edit back: every file has the bytes that it had before."""
    return view.turn(desk().workspace, name, back=True, leave_changed=body.leave_changed)


@resource.post("/datasets/<name>/caption-tools/redo")
def redo(name: str, body: Turn) -> Done:
    """Make the edit again that was undone last."""
    return view.turn(desk().workspace, name, back=False, leave_changed=body.leave_changed)


@resource.post("/datasets/<name>/caption-tools/sets", status=201)
def keep(name: str, body: NewSet) -> SetRow:
    """Keep the captions as a set."""
    return view.keep(desk().workspace, name, body.name)


@resource.post("/datasets/<name>/caption-tools/write", status=202, refuses=(409,))
def write(name: str, body: Captioned) -> JobRow:
    """Put a captioning into the queue."""
    return view.write(desk().workspace, name, body.model_dump(exclude_none=True))
