"""The dashboard: what happens, whether all is well, what to do next. Put together from the other views.

Used by the Dashboard page and the API. Everything is read anew; nothing is kept here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from controlpilot.services import services
from controlpilot.supervisor import ServiceState
from controlpilot.telemetry import Gpu, Sample
from controlpilot.views import run as run_view
from controlpilot.views import samples
from controlpilot.views.queue import QueueView, queue
from controlpilot.views.run import RunDetail
from controlpilot.views.run_index import index
from controlpilot.views.runs import RunRow, folder_of, row_of
from controlpilot.words import ago_text, bytes_text, duration_text, money_text
from trainpilot.runs.atomic import read_json
from trainpilot.workspace import Workspace

LAST_RUNS = 5
FAILED_LATELY = 86400.0  # seconds for which a failed run is worth an alert
DISK_LOW = 10 * 2**30  # bytes: about a checkpoint of a large model and its neighbours
DISK_VERY_LOW = 2 * 2**30
MEMORY_FULL = 0.94
GPU_MEMORY_FULL = 0.98
GPU_HOT = 88.0  # degrees: cards slow themselves down from about here

Level = Literal["bad", "warn", "info"]
# What an alert is about, so that the page can lead there.
About = Literal["run", "queue", "disk", "gpu", "memory", "service", "pod", "costs"]


class Alert(BaseModel):
    """Something that wants a person. name: of the run or service it is about."""

    level: Level
    about: About
    name: str = ""
    title: str
    text: str = ""
    remedy: str


class ServiceLine(BaseModel):
    """A service on the strip. state: supervisord's word, or "UNKNOWN" where nothing tells."""

    name: str
    label: str
    state: str
    public: bool = Field(description="Whether it has a page to open")


class Session(BaseModel):
    """What this session has cost. Without a price only the time is known."""

    since: float = Field(description="Unix seconds")
    price_per_hour: float | None
    cost: float | None


class Dashboard(BaseModel):
    """The whole page."""

    fresh: bool = Field(description="Whether no run was ever made here")
    run: RunDetail | None = Field(description="The run in progress, if one is")
    sample: samples.Sample | None = Field(description="Its newest sample")
    queue: QueueView
    last: list[RunRow] = Field(description="Runs that ended, the newest first")
    machine: Sample
    services: list[ServiceLine] = Field(description="Those installed; none where nothing tells their states")
    services_note: str = Field(description="Why the services' states are not known; empty where they are")
    session: Session
    alerts: list[Alert]


def dashboard(
    workspace: Workspace,
    machine: Sample,
    states: Mapping[str, ServiceState] | None,
    services_note: str,
    since: float,
    run_folder: Path,
    price_per_hour: float | None = None,
    stop_ready: bool | None = None,
) -> Dashboard:
    """Everything at a glance. states: of supervisord, None where it is not there; since: when the session began;
    run_folder: where boot left what it found; stop_ready: whether something is set that stops this pod, None where
    there is no pod to stop."""
    rows = index(workspace).rows()[0]
    waiting = queue(workspace)
    running = waiting.running[0] if waiting.running else None
    detail = run_view.detail(workspace, running.name) if running else None
    ended = sorted((row for row in rows if row.view not in ("running", "queued")), key=lambda row: -row.when)
    last = [row_of(row) for row in ended[:LAST_RUNS]]
    strip = _strip(workspace, states)
    return Dashboard(
        fresh=not rows,
        run=detail,
        sample=_newest_sample(workspace, running.name) if running else None,
        queue=waiting,
        last=last,
        machine=machine,
        services=strip,
        services_note=services_note,
        session=_session(since, price_per_hour),
        alerts=[
            *_of_boot(run_folder),
            *_of_disk(machine),
            *_of_memory(machine),
            *_of_services(strip),
            *_of_queue(waiting),
            *_of_costs(waiting, last, stop_ready, price_per_hour),
            *_of_run(detail),
            *_of_failures(last),
        ],
    )


def _newest_sample(workspace: Workspace, name: str) -> samples.Sample | None:
    found = samples.matrix(folder_of(workspace, name), rows=1)
    return next((sample for row in found.cells for sample in row if sample), None)


def _strip(workspace: Workspace, states: Mapping[str, ServiceState] | None) -> list[ServiceLine]:
    if states is None:
        return []  # nothing could be said of any
    return [
        ServiceLine(
            name=one.name,
            label=one.label,
            state=states[one.program].state if one.program in states else "UNKNOWN",
            public=one.port is not None,
        )
        for one in services(workspace)
        if one.installed
    ]


def _session(since: float, price: float | None) -> Session:
    hours = max(0.0, time.time() - since) / 3600
    return Session(since=since, price_per_hour=price, cost=None if price is None else price * hours)


# --- alerts -----------------------------------------------------------------------------------------------------------


def _of_boot(run_folder: Path) -> list[Alert]:
    """What boot found wrong with the pod (controlpilot/boot writes it); nothing on a machine that has no boot."""
    lines = (read_json(run_folder / "boot.json") or {}).get("lines")
    return [
        Alert(
            level="warn",
            about="pod",
            title=str(line.get("what", "")),
            text=str(line.get("text", "")),
            remedy="Found when the pod started. Mend it and restart the pod.",
        )
        for line in (lines if isinstance(lines, list) else [])
        if isinstance(line, dict) and line.get("level") == "problem"
    ]


def _of_disk(machine: Sample) -> list[Alert]:
    if machine.disk_free >= DISK_LOW:
        return []
    very = machine.disk_free < DISK_VERY_LOW
    return [
        Alert(
            level="bad" if very else "warn",
            about="disk",
            title="The disk is full" if very else "The disk is nearly full",
            text=f"{bytes_text(machine.disk_free)} of {bytes_text(machine.disk_total)} are free.",
            remedy="Delete checkpoints and models that you no longer need, and empty the trash.",
        )
    ]


def _of_memory(machine: Sample) -> list[Alert]:
    found = []
    if machine.memory_used > MEMORY_FULL * machine.memory_total:
        used = f"{bytes_text(machine.memory_used)} of {bytes_text(machine.memory_total)} are in use."
        remedy = "Stop services that you do not need; a program that asks for more may be ended by the system."
        found.append(Alert(level="warn", about="memory", title="Memory is nearly full", text=used, remedy=remedy))
    for gpu in machine.gpus:
        found += _of_gpu(gpu)
    return found


def _of_gpu(gpu: Gpu) -> list[Alert]:
    found = []
    if gpu.temperature is not None and gpu.temperature >= GPU_HOT:
        text = f"{gpu.temperature:.0f} °C: a GPU this hot slows itself down."
        remedy = "On a rented pod, tell the provider or move to another one; at home, look at its fans."
        found.append(Alert(level="warn", about="gpu", title=f"{gpu.name} is hot", text=text, remedy=remedy))
    if gpu.memory_used > GPU_MEMORY_FULL * gpu.memory_total:
        text = f"{bytes_text(gpu.memory_used)} of {bytes_text(gpu.memory_total)} are in use."
        remedy = "If a run fails for want of memory, stop other services that use the GPU or lower the resolution."
        found.append(Alert(level="info", about="gpu", title=f"{gpu.name}: memory is full", text=text, remedy=remedy))
    return found


def _of_services(strip: list[ServiceLine]) -> list[Alert]:
    return [
        Alert(
            level="bad",
            about="service",
            name=one.name,
            title=f"{one.label} does not start",
            remedy="Its log says why; start it again when that is mended.",
        )
        for one in strip
        if one.state == "FATAL"
    ]


def _of_queue(waiting: QueueView) -> list[Alert]:
    if waiting.waiting and not waiting.worker:
        count = len(waiting.waiting)
        title = (
            "A run waits, but no worker works here" if count == 1 else f"{count} runs wait, but no worker works here"
        )
        return [Alert(level="warn", about="queue", title=title, remedy=waiting.remedy)]
    if waiting.waiting and waiting.paused:
        text = "What runs goes on; nothing new starts."
        return [
            Alert(level="info", about="queue", title="The queue is paused", text=text, remedy="Continue the queue.")
        ]
    return []


def _of_costs(waiting: QueueView, last: list[RunRow], stop_ready: bool | None, price: float | None) -> list[Alert]:
    """Where runs have ended, nothing waits, and nothing would stop the pod."""
    if stop_ready is not False or waiting.running or waiting.waiting or not last:
        return []
    costs = f" {money_text(price)} an hour" if price else ""
    title = f"Nothing runs, and this pod keeps costing{costs}"
    text = f"The last run ended {ago_text(max(row.when for row in last))}."
    remedy = "Stop it on your provider's page, or set on the Settings tab what stops it when it is idle."
    return [Alert(level="info", about="costs", title=title, text=text, remedy=remedy)]


def _of_run(detail: RunDetail | None) -> list[Alert]:
    if detail is None:
        return []
    levels: dict[str, Level] = {"bad": "bad", "warning": "warn"}
    return [
        Alert(level=levels[sign.level], about="run", name=detail.run.name, title=sign.text, remedy=sign.remedy)
        for sign in detail.signs
        if sign.level in levels
    ]


def _of_failures(last: list[RunRow]) -> list[Alert]:
    now = time.time()
    found = []
    for row in last:
        lately = now - row.when
        if row.status not in ("failed", "interrupted") or lately > FAILED_LATELY:
            continue
        found.append(
            Alert(
                level="bad" if row.status == "failed" else "warn",
                about="run",
                name=row.name,
                title=f"{row.title or row.name} {'failed' if row.status == 'failed' else 'was interrupted'}",
                text=row.reason or f"{duration_text(lately)} ago",
                remedy="Its page says what to do; a run can be resumed from its last checkpoint.",
            )
        )
    return found
