"""Datasets: what there is, pictures and captions, and changes that can be taken back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import dataset_changes as changes
from controlpilot.views import datasets
from controlpilot.views.dataset_changes import Changed
from controlpilot.views.dataset_check import Check
from controlpilot.views.dataset_check import check as checked
from controlpilot.views.dataset_folders import folder
from controlpilot.views.datasets import DatasetCard, PicturePage

resource = Resource("datasets", "Datasets, their pictures and captions")
blueprint = resource.blueprint


class DatasetList(BaseModel):
    """All datasets by name."""

    datasets: list[DatasetCard]


class PictureQuery(BaseModel):
    """Which pictures. page counts from 1; q: text in name or caption."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    q: Annotated[str, Field(max_length=200)] = ""
    only: Literal["all", "uncaptioned", "broken", "captioned"] = "all"


class CheckQuery(BaseModel):
    """trigger: the word that captions should have, and begin with."""

    trigger: Annotated[str, Field(max_length=200)] = ""


class Caption(BaseModel):
    """A caption. was: the text that was seen; where it has changed since, the answer is 409."""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(max_length=200_000)]
    was: Annotated[str, Field(max_length=200_000)] | None = None


class NewName(BaseModel):
    """Another N_name; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    repeats: Annotated[int, Field(ge=1, le=10_000)] | None = None
    subject: Annotated[str, Field(max_length=100)] | None = None


@resource.get("/datasets")
def index() -> DatasetList:
    """All datasets; folders that cannot be used have a `problem`."""
    return DatasetList(datasets=datasets.listing(desk().workspace))


@resource.get("/datasets/<name>")
def one(name: str) -> DatasetCard:
    """One dataset."""
    return datasets.card(desk().workspace, name, folder(desk().workspace, name))


@resource.patch("/datasets/<name>", refuses=(409,))
def rename(name: str, body: NewName) -> Changed:
    """Give a dataset other repeats or another name."""
    return changes.rename(desk().workspace, name, body.repeats, body.subject)


@resource.delete("/datasets/<name>")
def remove(name: str) -> Changed:
    """Move a dataset to the trash."""
    return changes.remove_dataset(desk().workspace, name)


@resource.get("/datasets/<name>/pictures")
def pictures(name: str, query: PictureQuery) -> PicturePage:
    """Some pictures, sixty a page. pending: their sizes and thumbnails are being made; ask again."""
    return datasets.page(desk().workspace, name, query.page, query.q, query.only)


@resource.get("/datasets/<name>/check")
def check(name: str, query: CheckQuery) -> Check:
    """What is wrong with a dataset, as far as names, captions and one look at each picture tell."""
    return checked(desk().workspace, name, None, query.trigger)


@resource.put("/datasets/<name>/captions/<path:file>", refuses=(409,))
def caption(name: str, file: str, body: Caption) -> Changed:
    """Write a caption. The earlier text is kept in the trash; `undo` names it."""
    return changes.write_caption(desk().workspace, name, file, body.text, body.was)


@resource.delete("/datasets/<name>/pictures/<path:file>", refuses=(409,))
def remove_picture(name: str, file: str) -> Changed:
    """Move a picture and its caption to the trash."""
    return changes.remove_picture(desk().workspace, name, file)
