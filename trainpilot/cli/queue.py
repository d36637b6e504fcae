"""`trainpilot queue`: put runs into the queue, look at it, change its order, pause it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from trainpilot.cli import _options

if TYPE_CHECKING:
    from trainpilot.workspace import Workspace

HELP = "Put runs into the queue, look at it, change its order, pause it"
EXAMPLE = "trainpilot queue add --profile standard --dataset 10_zorp --base-model pilot-tiny && trainpilot queue list"


def arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    add = verbs.add_parser("add", help="plan a run, make its folder, and leave it to the worker")
    _options.arguments(add)
    others = [
        verbs.add_parser("list", help="what runs and what waits"),
        move := verbs.add_parser("move", help="change the order"),
        pause := verbs.add_parser("pause", help="start nothing for now, or not this run; what runs goes on"),
        go_on := verbs.add_parser("resume", help="the opposite of pause"),
        anyway := verbs.add_parser("anyway", help="start a run although other programs hold the GPU memory it needs"),
        remove := verbs.add_parser("remove", help="take a waiting run out; its folder stays"),
        stop := verbs.add_parser("stop", help="stop a running run, with its last step saved"),
    ]
    for one in (move, anyway, remove, stop):
        one.add_argument("run", metavar="RUN", help="name of a run")
    for one in (pause, go_on):
        one.add_argument("run", metavar="RUN", nargs="?", help="name of a run; without it, the whole queue")
    move.add_argument("to", metavar="PLACE", type=int, help="place in the queue, from 1")
    for one in others:
        one.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    for one in (add, *others):
        one.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from trainpilot.cli._preparing import prepare
    from trainpilot.errors import ExitCode
    from trainpilot.runs.queue import Queue
    from trainpilot.runs.rundir import RunDir
    from trainpilot.runs.stop import StopFlag, StopRequested

    place = _options.workspace(args)
    queue = Queue(place)
    if args.do == "add":
        with StopFlag() as stop:
            try:
                made = prepare(args, stop)
            except StopRequested as asked:
                print(f"{asked.reason}; nothing was made")
                return int(asked.kind)
        made.queue()
        made.events.close()
    elif args.do == "remove":
        queue.remove(args.run)
    elif args.do == "stop":
        _stop(RunDir.find(place, args.run))
    elif args.do != "list":
        queue.ask(args.do, args.run, getattr(args, "to", None))
    shown = _shown(place)
    print(json.dumps(shown) if args.json else _text(shown))
    return int(ExitCode.DONE)


def _stop(run: Any) -> None:
    from trainpilot.errors import PilotError
    from trainpilot.runs.requests import ask

    job = run.job
    if job is None or not job.live:
        remedy = f"A waiting one: trainpilot queue remove {run.name}."
        raise PilotError(f"run {run.name}", job.view if job else "never started", "a running run", remedy)
    ask(run.path, "stop")


def _shown(place: Workspace) -> dict[str, Any]:
    """The queue as JSON: running and waiting runs in order, pauses, and whether a worker works."""
    from trainpilot.runs.atomic import read_json
    from trainpilot.runs.job import Job
    from trainpilot.runs.process import Identity
    from trainpilot.runs.queue import Queue
    from trainpilot.runs.rundir import folders
    from trainpilot.runs.state import read_state

    order, waiting = Queue(place).now()
    running = []
    for path in folders(place):
        job = Job.read(path)
        if job is not None and job.status == "running":
            state = read_state(path / "state.json") or {}
            facts = {key: state.get(key) for key in ("phase", "step", "of", "eta")}
            running.append({"run": path.name, "status": job.view, "device": job.device, **facts})
    worker = Identity.parse((read_json(place.jobs / "worker.json") or {}).get("process"))
    rows = []
    for name in waiting:
        job = Job.read(place.outputs / name)
        paused = order.paused or name in order.paused_runs
        rows.append({"run": name, "paused": paused, "reason": job.reason if job else ""})
    return {"worker": worker is not None and worker.alive(), "paused": order.paused, "running": running, "queued": rows}


def _text(shown: dict[str, Any]) -> str:
    lines = []
    for row in shown["running"]:
        of = f" {row['step']}/{row['of']}" if row["of"] else ""
        lines.append(f"   {row['run']}: {row['status']} on {row['device']}, {row['phase'] or 'starting'}{of}")
    for place, row in enumerate(shown["queued"], start=1):
        notes = ", ".join(filter(None, ("paused" if row["paused"] else "", row["reason"])))
        lines.append(f"{place}. {row['run']}{f' ({notes})' if notes else ''}")
    lines = lines or ["the queue is empty"]
    if shown["queued"] and not shown["worker"]:
        lines.append("no worker works here; start one: trainpilot worker")
    return "\n".join(lines)
