"""The queue as a person sees it: what runs where, what waits, and for what; and the changes to it.

Order and pauses are the worker's (`trainpilot.runs.queue`); here they are shown and asked for. Used by the Runs page,
the dashboard and the API.
"""

from __future__ import annotations

from typing import Literal

import psutil
from pydantic import BaseModel, Field

from controlpilot.services import services
from controlpilot.supervisor import Supervisor
from controlpilot.views import gpu_memory
from controlpilot.views.refusals import Conflict
from controlpilot.views.run_index import Row, index
from controlpilot.views.runs import RunRow, folder_of, row_of
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json
from trainpilot.runs.locks import device_lock
from trainpilot.runs.process import Identity
from trainpilot.runs.queue import Queue
from trainpilot.workspace import Workspace

FOR_MEMORY = "waiting for"  # how the worker's reason begins; trainpilot.runs.gpu_memory.shortage
GROUPS = ("Pictures", "Trainers")  # of services that use a GPU
Do = Literal["move", "up", "down", "first", "last", "pause", "resume", "anyway"]


class Device(BaseModel):
    """A device that runs use. run: what runs there now; others: what else holds its memory, in words."""

    device: str
    name: str
    run: str | None
    busy: bool = Field(description="Whether its lock is held, by whomever")
    others: list[str]


class InTheWay(BaseModel):
    """A service that holds GPU memory and can be stopped."""

    name: str
    label: str


class Waiting(BaseModel):
    """A run that waits. why: for what, in words; what to do about it is in `remedy`."""

    place: int
    run: RunRow
    paused: bool
    why: str
    remedy: str
    memory: bool = Field(default=False, description="Whether it waits for GPU memory; it can be started anyway")
    in_the_way: list[InTheWay] = Field(default_factory=list, description="Services to stop for that")


class QueueView(BaseModel):
    """The whole queue."""

    worker: bool = Field(description="Whether a worker works here; without one nothing starts")
    remedy: str = Field(description="How to get a worker, where there is none")
    paused: bool
    devices: list[Device]
    running: list[RunRow]
    waiting: list[Waiting]


class _Known(Queue):
    """The worker's queue, with the waiting runs as the index knows them instead of a look into every folder."""

    def __init__(self, workspace: Workspace, rows: dict[str, Row]) -> None:
        super().__init__(workspace)
        self._rows = rows

    def waiting(self) -> list[str]:
        found = [row for row in self._rows.values() if row.status == "queued"]
        return [row.name for row in sorted(found, key=lambda row: (row.times.get("queued", 0.0), row.name))]


def _rows(workspace: Workspace) -> dict[str, Row]:
    return {row.name: row for row in index(workspace).rows()[0]}


def queue(workspace: Workspace, supervisor: Supervisor | None = None) -> QueueView:
    """What runs and what waits, in order. supervisor: asked for services only where a run waits for memory."""
    rows = _rows(workspace)
    running = sorted((row for row in rows.values() if row.status == "running"), key=lambda row: row.when)
    order, waiting = _Known(workspace, rows).now()
    told = read_json(workspace.jobs / "worker.json") or {}
    identity = Identity.parse(told.get("process"))
    worker = bool(told.get("working")) and identity is not None and identity.alive()
    devices = _devices(told.get("devices"), [row for row in rows.values() if row.live])
    shown: list[Waiting] = []
    for name in waiting:
        if (row := rows.get(name)) is None:
            continue
        paused = name in order.paused_runs
        why, remedy = _why(row, len(shown), devices, worker=worker, all_paused=order.paused, paused=paused)
        if name in order.anyway:
            why, remedy = "Starts in a moment, although others hold memory that it needs.", ""
        memory = worker and not row.live and row.reason.startswith(FOR_MEMORY) and name not in order.anyway
        shown.append(
            Waiting(place=len(shown) + 1, run=row_of(row), paused=paused, why=why, remedy=remedy, memory=memory)
        )
    if any(one.memory for one in shown):
        found = _in_the_way(workspace, supervisor)
        for one in shown:
            one.in_the_way = found if one.memory else []
    return QueueView(
        worker=worker,
        remedy=""
        if worker
        else "Start the service TrainPilot on the Services page, or run in a shell: trainpilot worker.",
        paused=order.paused,
        devices=devices,
        running=[row_of(row) for row in running],
        waiting=shown,
    )


def change(workspace: Workspace, do: Do, run: str | None = None, to: int | None = None) -> None:
    """Ask the worker for a change. Without a run, pause and resume are for the whole queue.

    Raises NotFound for a run that does not exist, Conflict for one that does not wait.
    """
    asked = _Known(workspace, _rows(workspace))
    if run is not None:
        folder_of(workspace, run)
        _, waiting = asked.now()
        if run not in waiting:
            raise Conflict("queue", f"{run} does not wait", "a waiting run", "It may have started; reload the page.")
        place = waiting.index(run) + 1
        if do in ("up", "down", "first", "last"):
            to = {"up": max(1, place - 1), "down": place + 1, "first": 1, "last": len(waiting)}[do]
            do = "move"
    elif do not in ("pause", "resume"):
        raise PilotError("queue", f"{do} without a run", "the run that is meant", "Name the run.")
    asked.ask(do, run, to)


def remove(workspace: Workspace, run: str) -> None:
    """Take a waiting run out of the queue; its folder stays. Conflict for one that has begun."""
    folder_of(workspace, run)
    try:
        Queue(workspace).remove(run)
    except PilotError as error:
        raise Conflict(error.where, error.given, error.allowed, error.remedy) from error


def _in_the_way(workspace: Workspace, supervisor: Supervisor | None) -> list[InTheWay]:
    """Running services whose processes hold GPU memory. Where the driver does not tell whose a process is, as in some
    containers, those that make or train pictures."""
    if supervisor is None:
        return []
    try:
        states = supervisor.states()
    except PilotError:
        return []  # the Services page says what is wrong with it
    running = [
        (one, states[one.program].pid)
        for one in services(workspace)
        if not one.pinned and one.program in states and states[one.program].state == "RUNNING"
    ]
    holding = {pid for holder in gpu_memory.holders() for pid in _with_parents(holder.pid)}
    found = [one for one, pid in running if pid in holding] or [one for one, _ in running if one.group in GROUPS]
    return [InTheWay(name=one.name, label=one.label) for one in found]


def _with_parents(pid: int) -> list[int]:
    """A process and those that started it: a service's own is often the parent of the one that computes."""
    try:
        return [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.Error:
        return [pid]


def _devices(told: object, live: list[Row]) -> list[Device]:
    """The worker's devices. What live runs hold themselves is no obstacle but the run."""
    names = [str(one) for one in told] if isinstance(told, list) else []
    found = gpu_memory.holders() if any(name != "cpu" for name in names) else []
    own = {int(row.process["pid"]) for row in live if row.process}
    runs = {row.device: row.name for row in live if row.device and row.status == "running"}
    shown = []
    for name in names:
        others = gpu_memory.obstacles(name, found, own)
        label = next((one.device_name for one in found if one.device == name), "CPU" if name == "cpu" else name[:12])
        shown.append(
            Device(
                device=name,
                name=label,
                run=runs.get(name),
                busy=not device_lock(name).free(),
                others=[f"{one.name} holds {_gigabytes(one.bytes)} of {_gigabytes(one.total)}" for one in others],
            )
        )
    return shown


def _why(
    row: Row, before: int, devices: list[Device], *, worker: bool, all_paused: bool, paused: bool
) -> tuple[str, str]:
    """For what a run waits, and what a person may do about it. before: runs that come first."""
    if row.live:
        return row.reason or "A shell holds it and waits for a device.", "It starts by itself when the device is free."
    if not worker:
        return "No worker works here.", "Start the service TrainPilot, or run in a shell: trainpilot worker."
    if all_paused:
        return "The queue is paused.", "Press Continue the queue."
    if paused:
        return "This run is paused.", "Press Continue on it."
    if row.reason.startswith(FOR_MEMORY):
        return f"{row.reason[0].upper()}{row.reason[1:]}.", "It starts by itself when there is room."
    if row.reason.startswith("retry"):
        return f"Waits some time before it tries again: {row.reason}.", "Take it out of the queue to stop that."
    held = [one for one in devices if one.others and not one.run]
    if held and before == 0 and all(one.others or one.run for one in devices):
        return (
            f"Another program uses the GPU's memory: {'; '.join(held[0].others)}.",
            "The run may fail for want of memory. Stop that program on the Services page, or pause this run.",
        )
    if before:
        return f"{before} {'run is' if before == 1 else 'runs are'} before it.", "Move it up to start it sooner."
    busy = [one.run for one in devices if one.run]
    if busy and len(busy) == len(devices):
        return f"Waits for {', '.join(str(one) for one in busy)} to end.", ""
    if devices and all(one.busy for one in devices):
        return "Another job uses the device.", "It starts when that ends."
    return "Starts in a moment.", ""


def _gigabytes(size: int | None) -> str:
    return "some memory" if size is None else f"{size / 1e9:.1f} GB"
