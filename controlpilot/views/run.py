"""One run as a person sees it: what it does now, how it goes, its checkpoints, files and configuration.

Used by the run's pages, the dashboard and the API. Everything is read from the run's folder.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from controlpilot.views import signs
from controlpilot.views.course import COURSES, Course
from controlpilot.views.refusals import NotFound
from controlpilot.views.run_index import read_row
from controlpilot.views.runs import RunRow, folder_of, row_of
from controlpilot.views.samples import matrix
from controlpilot.views.series import series
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json
from trainpilot.runs.job import Job
from trainpilot.runs.rundir import RunDir, configurations
from trainpilot.runs.state import heartbeat_age, read_state
from trainpilot.workspace import Workspace

STEP = re.compile(r"step-(\d{1,12})")
PHASES = {
    "start": "starting", "device": "preparing the device", "scan": "reading the dataset", "load": "loading the model",
    "captions": "encoding captions", "latents": "encoding pictures", "compile": "compiling", "train": "training",
    "verify": "verifying the file", "evaluate": "painting the report", "wait": "waiting for a device",
}  # fmt: skip
_STATUS_WORDS = {
    "done": "finished", "stopped": "stopped", "failed": "failed", "interrupted": "interrupted", "queued": "waiting",
    "new": "not started",
}  # fmt: skip
# Where a run is on the way dataset -> train -> test -> share.
_STATION = {"scan": 0, "captions": 0, "latents": 0, "verify": 2, "evaluate": 2}
_BUCKETS = 240  # points of a line that the signs look at

Place = Literal["dataset", "train", "test", "share"]


class Checkpoint(BaseModel):
    """One checkpoint. file: the LoRA in it, for download; complete: whether a run can be resumed from it."""

    step: int
    folder: str
    file: str | None
    bytes: int
    complete: bool
    made: float
    newest: bool = Field(description="Where a resumed run goes on")


class Progress(BaseModel):
    """What the run does at this moment. step of `of` is in the phase's own unit: optimizer updates while training."""

    phase: str
    words: str = Field(description="The phase in words")
    place: Place = Field(description="Where it is on the way")
    step: int
    of: int
    share: float | None = Field(description="0 to 1")
    eta: float | None = Field(description="Seconds left in this phase")
    speed: float | None = Field(description="Steps a second")
    images_per_second: float | None
    memory_gb: float | None
    loss: float | None
    loss_average: float | None
    rate: float | None = Field(description="Learning rate")
    gradient_norm: float | None
    epoch: int
    heartbeat_age: float | None


class Note(BaseModel):
    """A notice or warning that the run gave."""

    t: float
    kind: str
    text: str
    attempt: int


class Can(BaseModel):
    """What may be asked of the run now. Each is empty, or says why not."""

    stop: str
    save: str
    sample: str
    resume: str
    queue: str
    unqueue: str
    trash: str


class RunDetail(BaseModel):
    """A run. Times are unix seconds."""

    run: RunRow
    notes: str = Field(description="What a person wrote about it")
    stop_pod: bool = Field(default=False, description="Whether the pod is stopped when this run is done or failed")
    folder: str
    progress: Progress
    signs: list[signs.Sign]
    told: list[Note] = Field(description="The newest notices and warnings, the newest first")
    checkpoints: list[Checkpoint]
    result: str | None = Field(description="The finished LoRA's file name")
    result_bytes: int | None
    diffusers: str | None
    report: bool
    seconds: float = Field(description="At work, over all attempts")
    planned_seconds: float | None
    steps_left: int | None
    can: Can
    read_all: bool = Field(description="Whether all events were read; if not, ask again soon")


def detail(workspace: Workspace, name: str) -> RunDetail:
    """A run by its name. NotFound where there is none."""
    path = folder_of(workspace, name)
    row = read_row(path)
    shown = row_of(row)
    course = COURSES.read(path)
    state = read_state(path / "state.json") or {}
    made = checkpoints(path)
    meta = read_json(path / "meta.json") or {}
    result = path / f"{name}.safetensors"
    diffusers = path / f"{name}.diffusers.safetensors"
    planned = (course.plan or {}).get("seconds")
    left = course.of - shown.step if course.of and shown.step is not None else None
    return RunDetail(
        run=shown,
        notes=str(meta.get("notes") or ""),
        stop_pod=meta.get("stop_pod") is True,
        folder=str(path.relative_to(workspace.root)),
        progress=_progress(shown, state, course),
        signs=signs.signs(facts(path, shown, course, state)),
        told=_told(course),
        checkpoints=made,
        result=result.name if result.is_file() else None,
        result_bytes=result.stat().st_size if result.is_file() else None,
        diffusers=diffusers.name if diffusers.is_file() else None,
        report=(path / "report" / "index.html").is_file(),
        seconds=round(course.seconds, 1),
        planned_seconds=float(planned) if isinstance(planned, (int, float)) else None,
        steps_left=left,
        can=_can(shown, made),
        read_all=course.complete,
    )


def signature(path: Path) -> str:
    """Changes whenever `detail` could say something else; costs a few stats. Of a live run it changes all the time."""
    parts = []
    for name in ("", "events.jsonl", "samples", "checkpoints", "report"):
        try:
            stat = (path / name).stat()
        except FileNotFoundError:
            parts.append("0")
            continue
        parts.append(f"{stat.st_mtime_ns:x}.{stat.st_size:x}")
    job = Job.read(path)
    # A run that hangs changes no file: its age must be told all the same.
    parts.append(f"{job.view}{int(time.monotonic() // 5) if job.live else ''}" if job else "new")
    return "-".join(parts)


def checkpoints(path: Path) -> list[Checkpoint]:
    """The run's checkpoints, the newest first. One that is being written is not complete."""
    folder = path / "checkpoints"
    found = []
    for place in folder.iterdir() if folder.is_dir() else ():
        match = STEP.fullmatch(place.name)
        if match is None or not place.is_dir() or place.is_symlink():
            continue
        files = [one for one in place.iterdir() if one.is_file()]
        lora = next((one.name for one in files if re.fullmatch(r".+-step\d+\.safetensors", one.name)), None)
        marker = place / "COMMITTED"
        found.append(
            Checkpoint(
                step=int(match[1]),
                folder=place.name,
                file=lora,
                bytes=sum(one.stat().st_size for one in files),
                complete=marker.is_file(),
                made=(marker if marker.is_file() else place).stat().st_mtime,
                newest=False,
            )
        )
    found.sort(key=lambda one: one.step, reverse=True)
    newest = next((one for one in found if one.complete), None)
    if newest is not None:
        newest.newest = True
    return found


def checkpoint_file(path: Path, step: int) -> Path:
    """The LoRA file of a checkpoint, for sending. NotFound where there is none."""
    made = next((one for one in checkpoints(path) if one.step == step and one.complete and one.file), None)
    if made is None or made.file is None:
        raise NotFound("checkpoint", step, "a complete checkpoint of this run", "Old ones go as new ones are made.")
    return path / "checkpoints" / made.folder / made.file


def facts(path: Path, shown: RunRow, course: Course, state: dict[str, Any]) -> signs.Facts:
    """What the signs look at, from the run's events and files."""
    drawn = series(path.name, course, buckets=_BUCKETS)
    attempt = max((start.get("attempt", 0) for start in course.starts), default=0)

    def line(key: str) -> list[float]:
        return [float("nan") if value is None else value for value in drawn.lines.get(key, [])]

    every = _every(path)
    pictures = matrix(path, rows=6)
    planned = (course.plan or {}).get("seconds_per_step")
    live = shown.status == "running"
    return signs.Facts(
        status=shown.status,
        phase=str(state.get("phase") or ""),
        reason=shown.reason,
        of=course.of,
        steps=drawn.steps,
        losses=line("loss"),
        speeds=line("it_s"),
        norms=line("grad_norm"),
        nan_steps=course.nan_steps[-20:],
        checkpoints=sorted(course.checkpoints),
        checkpoint_every=every[0],
        samples=sorted(course.samples),
        sample_every=every[1],
        notes=[str(one.get("text", "")) for one in course.notes if one.get("attempt") == attempt],
        picture_bytes=[(one.step, one.bytes_per_pixel) for row in pictures.cells for one in row if one],
        planned_seconds_per_step=float(planned) if isinstance(planned, (int, float)) and planned > 0 else None,
        heartbeat_age=heartbeat_age(state) if live else None,
    )


def _every(path: Path) -> tuple[int, int]:
    """Steps between checkpoints and between samples; 0 where the configuration cannot be read or says so."""
    newest = configurations(path)[-1]
    return _every_of(path, newest.name, newest.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _every_of(path: Path, name: str, changed: int) -> tuple[int, int]:
    try:
        config = RunDir.open(path).config
    except PilotError:
        return 0, 0  # the page names the damaged file where it shows the configuration
    return config.saving.every_steps, config.sampling.every_steps


def _progress(shown: RunRow, state: dict[str, Any], course: Course) -> Progress:
    phase = str(state.get("phase") or "")
    over = shown.status in ("done", "stopped", "failed", "interrupted")
    training = phase == "train" or over or not phase
    step, of = state.get("step"), state.get("of")
    if training:
        # Events tell every step at once, the state twice a second; the newer one is right.
        told = int(course.told_steps[-1]) if course.points else 0
        step = told if over else max(told, step if phase == "train" and isinstance(step, int) else 0)
        of = course.of or shown.steps
    step, of = step if isinstance(step, int) else 0, of if isinstance(of, int) else 0
    words = _STATUS_WORDS.get(shown.status) or PHASES.get(phase, phase or "starting")
    places: tuple[Place, ...] = ("dataset", "train", "test")
    place: Place = "share" if shown.status == "done" else places[_STATION.get(phase, 1)]
    live = shown.status == "running"
    return Progress(
        phase=phase,
        words=words,
        place=place,
        step=step,
        of=of,
        share=min(1.0, step / of) if of else None,
        eta=shown.eta if live and training else None,
        speed=course.last("it_s"),
        images_per_second=course.last("images_s"),
        memory_gb=course.last("vram_gb"),
        loss=course.last("loss"),
        loss_average=course.last("loss_avg"),
        rate=course.last("lr"),
        gradient_norm=course.last("grad_norm"),
        epoch=course.epoch + 1 if course.points else 0,
        heartbeat_age=heartbeat_age(state) if live else None,
    )


def _told(course: Course, most: int = 40) -> list[Note]:
    found = []
    for event in reversed(course.notes):
        at, attempt = event.get("t"), event.get("attempt")
        found.append(
            Note(
                t=float(at) if isinstance(at, (int, float)) else 0.0,
                kind=event["kind"],
                text=str(event.get("text", "")),
                attempt=attempt if isinstance(attempt, int) else 0,
            )
        )
        if len(found) == most:
            break
    return found


def _can(shown: RunRow, made: list[Checkpoint]) -> Can:
    running, status = shown.status == "running", shown.status
    not_running = f"The run is {status}; only a running one can be asked."
    waits = status == "queued" and not shown.live
    busy = "The run is running; stop it first." if running else ""
    resume = busy or ("It waits in the queue already." if status == "queued" else "")
    if not resume and status == "done":
        resume = "It is finished. To train on, resume it with more steps."
    training = running and shown.phase == "train"
    steer = "" if training else not_running if not running else f"It is {PHASES.get(shown.phase, 'busy')} now."
    trash = "The run is live; stop it first." if shown.live or running else ""
    if waits:
        trash = "It waits in the queue; take it out of the queue first."
    return Can(
        stop="" if running or (status == "queued" and shown.live) else not_running,
        save=steer,
        sample=steer,
        resume=resume,
        queue="" if status == "new" else resume or "",
        unqueue="" if waits else "It does not wait in the queue.",
        trash=trash,
    )
