"""The queue: which runs wait, in what order, and what is paused.

A run waits when its own job.json says so; `jobs/queue.json` holds only order and pauses. The worker writes it, from
requests that anyone puts into `jobs/queue/requests/`. Used by the worker, by `trainpilot queue` and by the panel.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.atomic import read_json, write_beside, write_json
from trainpilot.runs.job import Job
from trainpilot.runs.rundir import RunDir, folders
from trainpilot.workspace import Workspace

ACTIONS = ("move", "pause", "resume", "anyway")
_numbers = itertools.count()


@dataclass(frozen=True)
class Order:
    """queue.json: runs in the order people gave them (others follow by age), what does not start for now, and what
    starts although the device's memory seems too little."""

    order: tuple[str, ...] = ()
    paused: bool = False
    paused_runs: frozenset[str] = field(default_factory=frozenset)
    anyway: frozenset[str] = field(default_factory=frozenset)

    def after(self, request: dict[str, Any], waiting: list[str]) -> Order:
        """The order after one request; one that makes no sense (its run has left the queue) changes nothing."""
        do, run = request.get("do"), request.get("run")
        if do in ("pause", "resume") and run is None:
            return replace(self, paused=do == "pause")
        if not isinstance(run, str):
            return self
        if do in ("pause", "resume"):
            runs = self.paused_runs | {run} if do == "pause" else self.paused_runs - {run}
            return replace(self, paused_runs=runs)
        if do == "anyway":
            return replace(self, anyway=self.anyway | {run})
        place = request.get("to")
        if do == "move" and run in waiting and isinstance(place, int):
            others = [name for name in self.sorted(waiting) if name != run]
            others.insert(max(place, 1) - 1, run)
            return replace(self, order=tuple(others))
        return self

    def sorted(self, waiting: list[str]) -> list[str]:
        """`waiting`, given by age, in this order."""
        places = {name: place for place, name in enumerate(self.order)}
        return sorted(waiting, key=lambda name: places.get(name, len(places)))


class Queue:
    """The queue of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path = workspace.jobs / "queue.json"
        self.requests = workspace.jobs / "queue" / "requests"

    def read(self) -> Order:
        """What the worker wrote last."""
        value = read_json(self.path) or {}
        paused_runs, anyway = (frozenset(map(str, value.get(key, []))) for key in ("paused_runs", "anyway"))
        return Order(tuple(map(str, value.get("order", []))), bool(value.get("paused")), paused_runs, anyway)

    def waiting(self) -> list[str]:
        """Runs whose job.json says queued, the oldest first."""
        found = []
        for path in folders(self.workspace):
            job = Job.read(path)
            if job is not None and job.status == "queued":
                found.append((job.times.get("queued", 0.0), path.name))
        return [name for _, name in sorted(found)]

    def now(self) -> tuple[Order, list[str]]:
        """The order with all requests that the worker has not seen yet, and the waiting runs in it."""
        order, waiting = self.read(), self.waiting()
        for _, request in self._pending():
            order = order.after(request, waiting)
        return order, order.sorted(waiting)

    def ask(self, do: str, run: str | None = None, to: int | None = None) -> None:
        """Ask for "move" (a run to place `to`, counted from 1), "pause" or "resume" (a run, or the whole queue), or
        "anyway" (a run starts although others hold the memory that it needs)."""
        if do not in ACTIONS:
            raise PilotError("queue", do, ", ".join(ACTIONS), "Choose one of these.")
        if do == "anyway" and run is None:
            raise PilotError("queue anyway", "no run", "the run that is meant", "Name the run.")
        if do == "move" and (to is None or to < 1):
            raise PilotError("queue move", to, "a place from 1 on", "Place 1 starts next.")
        if run is not None and run not in (waiting := self.waiting()):
            where = ", ".join(waiting) or "the queue is empty"
            raise PilotError("queue", f"{run} does not wait", where, "See `trainpilot queue list`.")
        self.requests.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}.json"
        write_beside(self.requests / name, json.dumps({"do": do, "run": run, "to": to}).encode())

    def apply(self) -> Order:
        """Take all requests into queue.json. For the worker, its only writer."""
        before = order = self.read()
        pending, waiting = self._pending(), self.waiting()
        for _, request in pending:
            order = order.after(request, waiting)
        left = frozenset(waiting)
        order = replace(
            order,
            order=tuple(name for name in order.order if name in left),
            paused_runs=order.paused_runs & left,
            anyway=order.anyway & left,
        )
        if order != before or not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            value = {
                "schema": 1,
                "order": order.order,
                "paused": order.paused,
                "paused_runs": sorted(order.paused_runs),
                "anyway": sorted(order.anyway),
            }
            write_json(self.path, value)
        for path, _ in pending:
            path.unlink(missing_ok=True)
        return order

    def remove(self, name: str) -> None:
        """Take a waiting run out of the queue; its folder stays. A run that has begun is refused."""
        run = RunDir.find(self.workspace, name)
        job = run.job
        if job is None or job.status != "queued":
            status = job.view if job else "not queued"
            remedy = f"To stop a running one: trainpilot queue stop {run.name}."
            raise PilotError(f"run {run.name}", status, "a queued run", remedy)
        run.retire("taken out of the queue by a person", ExitCode.STOPPED)

    def _pending(self) -> list[tuple[Path, dict[str, Any]]]:
        """Requests in the order they were made; a file that is no request is an empty one and goes with the rest."""
        if not self.requests.is_dir():
            return []
        return [(path, read_json(path) or {}) for path in sorted(self.requests.glob("[0-9]*.json"))]
