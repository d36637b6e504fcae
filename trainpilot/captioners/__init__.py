"""Captioners: models that look at a picture and write its caption. One file each, found by looking into this folder.

A module names itself, its published models and its options, and loads without torch: what is heavy is imported by its
`load`. A file that begins with _ is no captioner. Used by the job `caption`, which does the reading and writing.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from trainpilot.errors import PilotError, Problems
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainpilot.engine.probe import Device

FOLDER = "captioners"  # below models/


@dataclass(frozen=True)
class Model:
    """A published model. name: its folder in models/captioners/; files: patterns, none for all; size_bytes: about."""

    name: str
    label: str
    repo: str
    size_bytes: int
    licence: str
    files: tuple[str, ...] = ()

    @property
    def download(self) -> dict[str, Any]:
        """Parameters of the job that fetches it."""
        return {"repo": self.repo, "files": list(self.files), "to": f"{FOLDER}/{self.name}", "title": self.label}


class Loaded(Protocol):
    """A captioner in memory. notes: what was decided while loading, one sentence each."""

    notes: list[str]

    def caption(self, images: Sequence[Image], look: Callable[[], None]) -> list[str]:
        """A caption for each upright RGB picture; `look` is called every now and then, and raises to stop."""
        ...


class Captioner(Protocol):
    """What a module of this folder has.

    MODELS: the first is the default; NEEDS: what a model's folder must hold, each with its alternatives; BATCH:
    pictures at once on a GPU; Options: what can be set.
    """

    NAME: str
    LABEL: str
    ABOUT: str
    MODELS: tuple[Model, ...]
    NEEDS: tuple[tuple[str, ...], ...]
    BATCH: int
    Options: type[BaseModel]

    def load(self, path: Path, device: Device, options: Any) -> Loaded: ...


class NotOnDisk(PilotError):
    """A published model that has to be fetched first."""

    def __init__(self, captioner: Captioner, model: Model) -> None:
        self.model = model
        names = ", ".join(one.name for one in captioner.MODELS)
        super().__init__(
            "captioner's model", f"{model.name} is not in models/{FOLDER}", f"one that is there; published: {names}",
            f"Fetch {model.repo} ({model.size_bytes / 1e9:.1f} GB): `trainpilot caption` does, and the Captions page.",
        )  # fmt: skip


@cache
def captioners() -> dict[str, Captioner]:
    """All captioners by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.NAME: module for module in modules}


def find(name: str) -> Captioner:
    """The captioner of that name; PilotError lists those there are."""
    known = captioners()
    if name not in known:
        raise PilotError("captioner", name or "none", ", ".join(known), "Choose one of these.")
    return known[name]


def check(captioner: Captioner, given: Mapping[str, Any]) -> BaseModel:
    """Options as the captioner's model; Problems names every wrong one. A list may be given as text with commas."""
    fields = captioner.Options.model_fields
    values = {
        name: [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str) and name in fields and str(fields[name].annotation).startswith("list")
        else value
        for name, value in given.items()
    }
    try:
        return captioner.Options.model_validate(values)
    except ValidationError as error:
        raise Problems(_problem(captioner, detail) for detail in error.errors()) from error


def locate(workspace: Workspace, captioner: Captioner, given: str = "") -> tuple[Path, str]:
    """The folder of a captioner's model, and how it was chosen.

    given: a published model's name, a folder in models/, a path; nothing means the default. Raises NotOnDisk for a
    published model that has to be fetched, PilotError for a folder that holds something else.
    """
    published = {model.name: model for model in captioner.MODELS} | {model.repo: model for model in captioner.MODELS}
    model = published.get(given) if given else captioner.MODELS[0]
    if model is None:
        path = workspace.locate(given, workspace.models / FOLDER, workspace.models)
        missing = _missing(captioner, path)
        if missing:
            raise PilotError(
                "captioner's model", f"{path} has no {missing}", f"a folder with a {captioner.LABEL} model, or one of "
                f"{', '.join(one.name for one in captioner.MODELS)}", "Check the path.",
            )  # fmt: skip
        return path.resolve(), "as given"
    why = "as given" if given else f"the default of {captioner.LABEL}"
    for folder, place in ((workspace.models / FOLDER / model.name, "models/"), (_snapshot(model), "the hub's cache")):
        if folder is not None and not _missing(captioner, folder):
            return folder.resolve(), f"{why}, found in {place}"
    raise NotOnDisk(captioner, model)


def _missing(captioner: Captioner, folder: Path) -> str:
    """What a model's folder lacks, in words; "" where nothing."""
    lacking = [names for names in captioner.NEEDS if not any((folder / name).is_file() for name in names)]
    return ", ".join(" or ".join(names) for names in lacking)


def _snapshot(model: Model) -> Path | None:
    """The newest snapshot of a model in the hub's cache, where other tools have put it."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    found = list((home / "hub" / f"models--{model.repo.replace('/', '--')}" / "snapshots").glob("*"))
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def _problem(captioner: Captioner, detail: Any) -> PilotError:
    place = ".".join(str(part) for part in detail["loc"])
    names = ", ".join(captioner.Options.model_fields)
    allowed = names if detail["type"] == "extra_forbidden" else str(detail["msg"]).removeprefix("Value error, ")
    return PilotError(f"{captioner.NAME}.{place}", str(detail.get("input"))[:200], allowed, "Correct it.")
