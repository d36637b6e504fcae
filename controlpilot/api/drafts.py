"""Drafts of the wizard."""

from __future__ import annotations

from pydantic import BaseModel

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views.drafts import Change, Choices, Draft, Drafts

resource = Resource("drafts", "Drafts of the wizard: what was chosen so far")
blueprint = resource.blueprint


class DraftList(BaseModel):
    """The last changed draft first."""

    drafts: list[Draft]


@resource.get("/drafts")
def index() -> DraftList:
    """All drafts."""
    return DraftList(drafts=Drafts(desk().workspace).all())


@resource.post("/drafts", status=201)
def create(body: Choices) -> Draft:
    """Keep new choices as a draft."""
    return Drafts(desk().workspace).create(body)


@resource.get("/drafts/<ident>")
def one(ident: str) -> Draft:
    """One draft."""
    return Drafts(desk().workspace).read(ident)


@resource.patch("/drafts/<ident>")
def change(ident: str, body: Change) -> Draft:
    """Change a draft: fields that are left out stay; a setting of null goes back to what decides it."""
    return Drafts(desk().workspace).change(ident, body)


@resource.delete("/drafts/<ident>")
def discard(ident: str) -> None:
    """Move a draft to the trash."""
    Drafts(desk().workspace).discard(ident)
