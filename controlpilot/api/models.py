"""Models: what is on disk, what can be fetched, and the tokens that fetching needs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.hub_tokens import HubTokens
from controlpilot.views import models as view
from controlpilot.views.jobs import JobRow
from controlpilot.views.models import Base, DownloadRequest, LoraDetail, LoraList, Offers

resource = Resource("models", "Base models, LoRAs and downloads")
blueprint = resource.blueprint


class LoraQuery(BaseModel):
    search: str = Field(default="", max_length=100, description="Part of the name")
    page: int = Field(default=1, ge=1, le=100_000)


class Token(BaseModel):
    model_config = {"extra": "forbid"}

    value: str = Field(max_length=500, description="The token; empty: forget the saved one")


class Trashed(BaseModel):
    undo: str = Field(description="Entry of the trash that puts it back")


def _tokens() -> HubTokens:
    return HubTokens(desk().secrets)


@resource.get("/models")
def bases() -> list[Base]:
    """The base models on disk and what they are"""
    return view.bases(desk().workspace)


@resource.get("/models/loras")
def loras(query: LoraQuery) -> LoraList:
    """The LoRA files in models/loras"""
    return view.loras(desk().workspace, query.search, query.page)


@resource.get("/models/loras/<name>")
def lora(name: str) -> LoraDetail:
    """One LoRA with its metadata"""
    return view.lora(desk().workspace, name)


@resource.delete("/models/loras/<name>")
def trash_lora(name: str) -> Trashed:
    """Move a LoRA into the trash"""
    return Trashed(undo=view.trash_lora(desk().workspace, name).id)


@resource.get("/models/catalogue")
def catalogue() -> Offers:
    """What can be fetched by name, and how it stands here"""
    return view.offers(desk().workspace, _tokens())


@resource.post("/models/downloads", status=202, refuses=(409,))
def download(body: DownloadRequest) -> JobRow:
    """Put a download into the queue"""
    return view.download(desk().workspace, body)


@resource.get("/models/tokens")
def tokens() -> dict[str, str | None]:
    """Where each token comes from: saved, environment, or null; never the token"""
    return dict(_tokens().sources())


@resource.put("/models/tokens/<name>")
def save_token(name: str, body: Token) -> dict[str, str | None]:
    """Keep a token, or forget it"""
    return view.save_token(_tokens(), name, body.value)
