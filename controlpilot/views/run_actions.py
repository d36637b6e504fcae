"""What a person does to a run: stop, save, sample, resume, queue; title, star, notes, tags; trash and back.

Nothing here trains: it writes requests and marks that the worker and the trainer act on (`contracts.md`).
Used by the run's pages and the API.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.views.course import COURSES
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.run import checkpoints
from controlpilot.views.run_index import read_row
from controlpilot.views.runs import folder_of
from controlpilot.views.trash import Trash
from trainpilot.config.merge import resolve
from trainpilot.runs.atomic import read_json, write_json
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.requests import ask
from trainpilot.runs.rundir import RunDir, configurations
from trainpilot.workspace import Workspace

Request = Literal["stop", "save", "sample"]
_META_LOCK = threading.Lock()  # several windows of the panel may write at once; the panel is the file's only writer


class About(BaseModel):
    """What people say about a run; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = Field(None, max_length=120, description="Shown instead of the name; empty: the name")
    star: bool | None = None
    notes: str | None = Field(None, max_length=20_000)
    tags: list[str] | None = Field(None, max_length=20)
    stop_pod: bool | None = Field(default=None, description="Stop the pod when this run is done or failed")


class Undo(BaseModel):
    """What was moved to the trash; `id` puts it back."""

    id: str
    name: str


def request_kind(kind: str) -> Request:
    """A word of a URL as a request. NotFound for any other."""
    if kind not in get_args(Request):
        raise NotFound("request", repr(kind[:20]), ", ".join(get_args(Request)), "Choose one of these.")
    return cast(Request, kind)


def request(workspace: Workspace, name: str, kind: Request) -> None:
    """Ask a live run to stop, to save or to sample. Conflict where no process runs it."""
    path = folder_of(workspace, name)
    row = read_row(path)
    waits_in_a_shell = kind == "stop" and row.status == "queued" and row.live
    if not (row.live and row.status == "running") and not waits_in_a_shell:
        status = "not started yet" if row.view == "new" else row.view
        remedy = "Take it out of the queue." if row.view == "queued" else "See the list of runs for what is running."
        raise Conflict(f"run {name}", status, "a running run", remedy)
    if waits_in_a_shell:
        # It has no attempt yet that could consume a request: its process is told.
        process = Identity.parse(row.process)
        if process is not None:
            process.signal(signal.SIGINT)
        return
    ask(path, kind)


def resume(workspace: Workspace, name: str, overrides: Sequence[str] = ()) -> str:
    """Put a run back into the queue, from its last checkpoint, with changed settings (`section.key=value`) if given.

    Returns one sentence about where it goes on. Raises Conflict for a run that is live or waits, and for a finished
    one without changes; Problems where the changes are wrong.
    """
    path = folder_of(workspace, name)
    row = read_row(path)
    if row.live or row.view == "queued":
        given = "running" if row.status == "running" else "waiting already"
        raise Conflict(f"run {name}", given, "a run that has ended", "Stop it first." if row.live else "Nothing to do.")
    if row.view == "done" and not overrides:
        remedy = "To train on, give more steps, for example training.steps=3000; or clone it."
        raise Conflict(f"run {name}", "finished", "more steps, or another change", remedy)
    run = RunDir.open(path, workspace)
    if overrides:
        run.change(resolve(workspace, file=configurations(path)[-1], overrides=list(overrides)))
    newest = next((one.step for one in checkpoints(path) if one.complete), None)
    run.queue("resumed by a person" if row.attempts else "")
    run.events.close()
    if newest is None:
        return "It waits in the queue and begins at step 1: there is no checkpoint yet."
    return f"It waits in the queue and goes on after step {newest}."


def describe(workspace: Workspace, name: str, about: About) -> dict[str, Any]:
    """Change title, star, notes or tags, in meta.json; the folder and its name stay. Returns what it says now."""
    path = folder_of(workspace, name)
    given: Mapping[str, Any] = about.model_dump(exclude_none=True)
    with _META_LOCK:
        meta = read_json(path / "meta.json") or {}
        meta = {"schema": 1} | meta | {key: _tidy(key, value) for key, value in given.items()}
        write_json(path / "meta.json", meta)
    return meta


def trash(workspace: Workspace, name: str) -> Undo:
    """Move a run's folder and the links to it into the trash. Conflict, with the remedy, for a live or waiting one."""
    path = folder_of(workspace, name)
    row = read_row(path)
    if row.view == "queued" and not row.live:
        raise Conflict(f"run {name}", "it waits in the queue", "a run that does not", "Take it out of the queue first.")
    lock = FolderLock(path / "run.lock")
    if row.live or not lock.acquire():
        raise Conflict(f"run {name}", "a process is running it", "a run that has ended", "Stop it first.")
    try:
        return _moved(workspace, path)
    finally:
        lock.release()


def _moved(workspace: Workspace, path: Path) -> Undo:
    name = path.name
    links = [workspace.loras / f"{name}.safetensors", workspace.logs / "tb" / name]
    here = [link for link in links if link.is_symlink() and _leads_into(link, path)]
    entry = Trash(workspace).move([path, *here], f"run {name}")
    COURSES.forget(path)
    return Undo(id=entry.id, name=name)


def restore(workspace: Workspace, ident: str) -> str:
    """Put a run back from the trash. Returns its name. NotFound where the entry is gone or holds no run."""
    bin_ = Trash(workspace)
    entry = bin_.entry(ident)
    if not entry.files or entry.files[0].origin.parent != workspace.outputs:
        raise NotFound("trash", ident[:40], "an entry that holds a run", "See the trash for what it holds.")
    bin_.restore(ident)
    return entry.files[0].origin.name


def _tidy(key: str, value: Any) -> Any:
    if key == "title":
        return " ".join(str(value).split())
    if key == "tags":
        tags = [" ".join(tag.lower().split())[:40] for tag in value]
        return list(dict.fromkeys(tag for tag in tags if tag))
    return value


def _leads_into(link: Path, folder: Path) -> bool:
    target = Path(os.path.normpath(link.parent / link.readlink()))
    return target == folder or folder in target.parents
