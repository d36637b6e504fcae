"""Models as pages and API show them: base models found, LoRAs, what can be fetched, and fetching it.

What a file is comes from its header alone (`trainpilot.models`, `trainpilot.formats.identify`), read once for each
version of a file. The panel fetches nothing itself: a download is a job of the courier.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from controlpilot.hub_tokens import HubTokens
from controlpilot.views import jobs
from controlpilot.views.jobs import JobRow
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.trash import Entry, Trash
from trainpilot.errors import PilotError
from trainpilot.families.card import cards
from trainpilot.formats.identify import identify
from trainpilot.models.catalogue import Item, catalogue
from trainpilot.models.catalogue import find as find_item
from trainpilot.models.detect import detect
from trainpilot.models.fetch import RESERVE, free_bytes
from trainpilot.models.ondisk import candidates
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.runs.secrets import TOKENS
from trainpilot.workspace import Workspace

PAGE = 40
_MOST_KNOWN = 2000  # files whose facts are kept in memory
_LORA = re.compile(r"(?!\.)[^/\\\x00-\x1f]{1,200}\.safetensors")
T = TypeVar("T")


class Base(BaseModel):
    """A base model on disk."""

    name: str = Field(description="Below models/; what --base-model takes")
    family: str = ""
    label: str = Field(default="", description="The family in words")
    variant: str = ""
    prediction: str = ""
    resolution: int | None = None
    size_bytes: int = 0
    tiny: bool = Field(default=False, description="A miniature, for trying things")
    recognised_by: str = ""
    problem: dict[str, Any] | None = Field(default=None, description="Why it cannot be used, as an error")


class Lora(BaseModel):
    """A LoRA file in models/loras."""

    name: str
    title: str = ""
    family: str = ""
    label: str = ""
    kind: str = ""
    ranks: list[int] = []
    alphas: list[float] = []
    naming: str = ""
    dtype: str = ""
    trigger: str = ""
    base: str = Field(default="", description="Base model that its metadata names")
    size_bytes: int = 0
    changed: float = Field(default=0, description="Unix seconds")
    run: str = Field(default="", description="The run that made it, where the file is a link to its result")
    problem: dict[str, Any] | None = None


class LoraDetail(Lora):
    modules: dict[str, int] = {}
    metadata: dict[str, str] = {}


class LoraList(BaseModel):
    loras: list[Lora] = Field(description="The newest first")
    total: int
    page: int
    pages: int


class Offer(BaseModel):
    """An entry of the catalogue, and how it stands here. download: its job, where one waits, runs or ended badly."""

    item: Item
    page: str
    label: str = Field(description="The family in words")
    here: bool
    fits: bool = Field(description="Whether the disk has room for it")
    needs_token: bool = Field(description="Gated, and no token is known")
    download: JobRow | None = None


class Offers(BaseModel):
    offers: list[Offer]
    problems: list[dict[str, Any]] = Field(description="What is wrong with entries of one's own")
    free_bytes: int
    tokens: dict[str, str | None] = Field(description="Where each token comes from: saved, environment, or null")


class DownloadRequest(BaseModel):
    """What to fetch: an entry of the catalogue by name, or a repository, or a file by its address."""

    model_config = {"extra": "forbid"}

    item: str = Field(default="", max_length=100, description="Entry of the catalogue")
    repo: str = Field(default="", max_length=200, description="Repository of the Hugging Face Hub, owner/name")
    revision: str = Field(default="main", max_length=200)
    files: list[str] = Field(default=[], max_length=500, description="Files of the repository, or patterns")
    url: str = Field(default="", max_length=4000, description="Address of one .safetensors file")
    name: str = Field(default="", max_length=150, description="Name of the file on disk")
    sha256: str = Field(default="", max_length=64)
    to: str = Field(default="", max_length=200, description="Folder below models/; loras for LoRA files")


class _Memory:
    """Facts about files by path, forgotten when the file changes."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], Any]] = {}
        self._lock = threading.Lock()

    def of(self, path: Path, read: Callable[[Path], T]) -> T | PilotError:
        mark = _mark(path)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == mark:
            return known[1]
        found: T | PilotError
        try:
            found = read(path)
        except PilotError as error:
            found = error
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.pop(next(iter(self._known)))
            self._known[path] = (mark, found)
        return found


def _mark(path: Path) -> tuple[int, ...]:
    """Changes with the file, or with any file of a model's folder and its components."""
    about = path.stat()
    if not path.is_dir():
        return about.st_size, about.st_mtime_ns
    inner = [entry for folder in (path, *(p for p in path.iterdir() if p.is_dir())) for entry in os.scandir(folder)]
    times = [entry.stat(follow_symlinks=False).st_mtime_ns for entry in inner]
    return about.st_mtime_ns, len(times), max(times, default=0)


_memory = _Memory()


def bases(workspace: Workspace) -> list[Base]:
    """The base models in models/, also those that cannot be used, with the reason."""
    found = []
    for path in candidates(workspace):
        name = str(path.relative_to(workspace.models))
        known = _memory.of(path, detect)
        if isinstance(known, PilotError):
            found.append(Base(name=name, problem=known.as_dict()))
            continue
        found.append(
            Base(
                name=name,
                family=known.family,
                label=family_label(known.family),
                variant=known.variant,
                prediction=known.prediction,
                resolution=known.resolution,
                size_bytes=known.size_bytes,
                tiny=known.tiny,
                recognised_by=known.reason,
            )
        )
    return found


def family_label(family: str) -> str:
    card = cards().get(family)
    return card.label if card else family


def loras(workspace: Workspace, search: str = "", page: int = 1) -> LoraList:
    """A page of the LoRA files, the newest first; search: part of the name."""
    paths = []
    if workspace.loras.is_dir():
        for entry in os.scandir(workspace.loras):
            if _LORA.fullmatch(entry.name) and search.lower() in entry.name.lower():
                try:
                    paths.append((entry.stat().st_mtime, entry.name))
                except OSError:  # a link whose run is in the trash
                    paths.append((0.0, entry.name))
    paths.sort(key=lambda found: (-found[0], found[1]))
    pages = max(1, -(-len(paths) // PAGE))
    page = min(max(page, 1), pages)
    shown = [_lora(workspace, name) for _, name in paths[(page - 1) * PAGE : page * PAGE]]
    return LoraList(loras=[Lora(**row.model_dump(include=set(Lora.model_fields))) for row in shown], total=len(paths),
                    page=page, pages=pages)  # fmt: skip


def lora(workspace: Workspace, name: str) -> LoraDetail:
    """One LoRA with its metadata. NotFound where there is none."""
    lora_file(workspace, name)
    return _lora(workspace, name)


def lora_file(workspace: Workspace, name: str) -> Path:
    """The file of a LoRA in models/loras, for sending it. NotFound where there is none, or it leads out."""
    path = workspace.loras / name
    inside = [workspace.loras.resolve(), workspace.outputs.resolve()]
    if _LORA.fullmatch(name) and is_file(path) and any(path.resolve().is_relative_to(place) for place in inside):
        return path
    remedy = "It may be in the trash, or its run is. See the list of LoRAs."
    raise NotFound("LoRA", repr(name[:100]), "a file in models/loras", remedy)


def is_file(path: Path) -> bool:
    """Whether there is a file; a name longer than any file's is simply none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _lora(workspace: Workspace, name: str) -> LoraDetail:
    path = workspace.loras / name
    run = ""
    if path.is_symlink():
        target = path.resolve()
        run = target.parent.name if target.parent.parent == workspace.outputs.resolve() else ""
    try:
        about = path.stat()
        found = _memory.of(path, identify)
    except OSError:
        gone = PilotError(
            name, "a link to a file that is gone", "an existing file", "Restore its run, or trash the link."
        )
        return LoraDetail(name=name, run=run, problem=gone.as_dict())
    if isinstance(found, PilotError):
        return LoraDetail(name=name, run=run, size_bytes=about.st_size, changed=about.st_mtime, problem=found.as_dict())
    return LoraDetail(
        name=name,
        title=found.title,
        family=found.family,
        label=family_label(found.family),
        kind=found.kind,
        ranks=found.ranks,
        alphas=found.alphas,
        naming=found.naming,
        dtype=found.dtype,
        trigger=found.trigger,
        base=found.metadata.get("ss_sd_model_name", ""),
        size_bytes=found.size_bytes,
        changed=about.st_mtime,
        run=run,
        modules=found.modules,
        metadata=found.metadata,
    )


def trash_lora(workspace: Workspace, name: str) -> Entry:
    """Move a LoRA, or the link to a run's, into the trash; the run keeps its file. NotFound where there is none."""
    path = workspace.loras / name
    if not _LORA.fullmatch(name) or not os.path.lexists(path):
        raise NotFound("LoRA", repr(name[:100]), "a file in models/loras", "It may be in the trash already.")
    return Trash(workspace).move([path], f"LoRA {name}")


def offers(workspace: Workspace, tokens: HubTokens) -> Offers:
    """The catalogue, with what is here, what fits and what is on its way."""
    items, problems = catalogue(workspace)
    free = free_bytes(workspace.models)
    known = tokens.sources()
    under_way = _downloads(workspace)
    rows = []
    for item in items:
        place = item.place(workspace)
        job = under_way.get(str(place))
        rows.append(
            Offer(
                item=item,
                page=item.page,
                label=family_label(item.family),
                here=_is_here(item, place) and (job is None or job.status == "done"),
                fits=item.size_bytes + RESERVE <= free,
                needs_token=item.gated and not known["HF_TOKEN"],
                download=job if job is not None and job.status != "done" else None,
            )
        )
    return Offers(offers=rows, problems=[p.as_dict() for p in problems], free_bytes=free, tokens=dict(known))


def _is_here(item: Item, place: Path) -> bool:
    """Whether a model lies there whole: a base as its own check says, others by their weights."""
    if item.kind == "base" and item.repo:
        return (place / "model_index.json").is_file() and not isinstance(_memory.of(place, detect), PilotError)
    return place.is_dir() and any(place.rglob("*.safetensors")) and not any(place.rglob(".*.part"))


def _downloads(workspace: Workspace) -> dict[str, JobRow]:
    """The newest download of each folder."""
    found: dict[str, JobRow] = {}
    for row in jobs.listing(workspace, "download").jobs:
        place = _place_of(workspace, row.id)
        if place:
            found.setdefault(place, row)
    return found


def _place_of(workspace: Workspace, ident: str) -> str:
    params = read_job(workspace.jobs / ident).get("params", {})
    to = str(params.get("to") or str(params.get("repo", "")).rpartition("/")[2])
    return str(workspace.models / to / str(params.get("name", "")) if params.get("url") else workspace.models / to)


def download(workspace: Workspace, asked: DownloadRequest) -> JobRow:
    """Put a download into the courier's queue. Conflict where the same is under way."""
    given = asked.model_dump(exclude_defaults=True)
    item = given.pop("item", "")
    if item:
        if given:
            raise PilotError(
                "item", f"{item} with {', '.join(given)}", "an entry of the catalogue alone", "Leave one out."
            )
        given = find_item(workspace, item).params
    for row in jobs.listing(workspace, "download", live=True).jobs:
        params = read_job(workspace.jobs / row.id).get("params", {})
        if all(params.get(key, "") == given.get(key, "") for key in ("repo", "url", "to")):
            raise Conflict("download", f"{row.title} is on its way", "one download of a thing", "Wait for it.")
    return jobs.one(workspace, JobDir.create(workspace, "download", given).name)


def save_token(tokens: HubTokens, name: str, value: str) -> dict[str, str | None]:
    """Keep a token, or forget it where the value is empty; where each comes from now."""
    if name not in TOKENS:
        raise NotFound("token", name[:40], ", ".join(TOKENS), "Choose one of these.")
    if value.strip():
        tokens.save(name, value)
    else:
        tokens.remove(name)
    return dict(tokens.sources())
