"""Services as the page, the API and the command line show them: what supervisord says, joined with what each file says.

Where there is no supervisord, on a machine that is no pod, the list says what runs here instead.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from controlpilot.services import Service, service, services
from controlpilot.services.choices import choose, trouble
from controlpilot.services.health import healthy
from controlpilot.supervisor import LogPart, NotAnswering, ServiceState, Supervisor
from controlpilot.views import jobs
from controlpilot.views.refusals import Conflict, NotFound
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.process import Identity
from trainpilot.workspace import Workspace

Do = Literal["start", "stop", "restart"]
INSTALL = "service-install"
UP = ("RUNNING", "STARTING", "BACKOFF")
ALONE = (
    "supervisord is not here, so services are neither started nor installed. In the pod it starts, watches and stops "
    "everything on this page; here the panel runs the worker and the courier itself."
)


class ServiceRow(BaseModel):
    """One service. Times are unix seconds."""

    name: str
    label: str
    help: str
    group: str
    state: str = Field(description="supervisord's word, or `missing` where it is not installed")
    reason: str = Field(default="", description="Why it does not run, as far as it is known")
    last_lines: str = Field(default="", description="The end of its log, where it failed")
    since: float | None = None
    pid: int | None = None
    port: int | None = Field(default=None, description="Its public port at the gateway")
    autostart: bool = False
    pinned: bool = Field(default=False, description="Cannot be stopped from here")
    installed: bool = True
    install: jobs.JobRow | None = Field(default=None, description="The newest job that installs or removes it")
    can_start: bool = False
    can_stop: bool = False
    can_open: bool = False
    can_install: bool = False


class ServiceList(BaseModel):
    """managed: whether supervisord is here; note: what to know, "" where all is as it should be."""

    managed: bool
    note: str
    services: list[ServiceRow]


class ServiceLog(BaseModel):
    """text is whole lines from byte `start` to `end`; ask again with `after=end`."""

    text: str
    start: int
    end: int
    size: int
    restarted: bool = Field(description="The log was rotated: this begins anew")


def listing(workspace: Workspace, supervisor: Supervisor | None) -> ServiceList:
    """Every service. Where supervisord does not answer, their files are listed with the reason."""
    known = services(workspace)
    if supervisor is None:
        return ServiceList(managed=False, note=ALONE, services=_native(workspace, known))
    note = trouble(workspace) or ""
    note = (
        note and f"config/services.toml is not used: {note}. Mend or remove it; each service starts as its file says."
    )
    try:
        states = supervisor.states()
    except NotAnswering as error:
        return ServiceList(
            managed=False, note=f"{error.given}. {error.remedy}", services=[_row(one, None) for one in known]
        )
    installs = {row.title.partition(" ")[2]: row for row in reversed(jobs.listing(workspace, INSTALL).jobs)}
    rows = []
    for one in known:
        row = _row(one, states.get(one.program))
        row.install = installs.get(one.name)
        busy = row.install is not None and row.install.status in jobs.LIVE
        row.can_install = one.install is not None and not one.installed and not busy
        if row.state == "FATAL":
            row.last_lines = supervisor.last_lines(one.program)
        rows.append(row)
    return ServiceList(managed=True, note=note, services=rows)


def one(workspace: Workspace, supervisor: Supervisor | None, name: str) -> ServiceRow:
    """One of them. Raises NotFound."""
    known = _known(workspace, name)
    return next(row for row in listing(workspace, supervisor).services if row.name == known.name)


def act(workspace: Workspace, supervisor: Supervisor | None, name: str, do: Do) -> ServiceRow:
    """Start, stop or restart. Raises Conflict for a pinned one and for one that is not installed."""
    known = _known(workspace, name)
    there = _there(supervisor)
    if known.pinned and do == "stop":
        raise Conflict(f"service {name}", "stop", "restart", "Without it nobody could start it again.")
    if not known.installed and do != "stop":
        raise Conflict(
            f"service {name}", "not installed", "an installed service", f"controlpilot services install {name}"
        )
    if known.name == "panel":
        there.signal(known.program, "TERM")  # supervisord starts it again; waiting for that would wait for ourselves
    elif do == "start":
        there.start(known.program)
    elif do == "stop":
        there.stop(known.program)
    else:
        there.restart(known.program)
    return one(workspace, supervisor, name)


def set_autostart(workspace: Workspace, name: str, on: bool) -> Service:
    """Whether it starts with the pod: noted in the workspace, read at the next boot."""
    known = _known(workspace, name)
    if known.pinned:
        raise Conflict(f"service {name}", "it always starts with the pod", "a service that is not pinned", "Leave it.")
    choose(workspace, known.program, on)
    return _known(workspace, name)


def install(workspace: Workspace, name: str, do: Literal["install", "remove"] = "install") -> jobs.JobRow:
    """A job that installs or removes a service. Raises Conflict where it is so already, or a job does it now."""
    known = _known(workspace, name)
    if known.install is None:
        raise Conflict(f"service {name}", "always there", "a service with an installer", "There is nothing to do.")
    if known.installed == (do == "install"):
        raise Conflict(f"service {name}", "installed" if known.installed else "not installed", do, "Nothing to do.")
    for row in jobs.listing(workspace, INSTALL, live=True).jobs:
        if row.title.partition(" ")[2] == known.name:
            raise Conflict(f"service {name}", f"job {row.id} is {row.status}", "one at a time", "Wait or cancel it.")
    made = JobDir.create(workspace, INSTALL, {"service": known.install, "do": do})
    return jobs.one(workspace, made.path.name)


def log(workspace: Workspace, supervisor: Supervisor | None, name: str, after: int | None) -> ServiceLog:
    """Output from a byte on; after None: the end of it."""
    part: LogPart = _there(supervisor).log(_known(workspace, name).program, after)
    return ServiceLog(**vars(part))


def openable(workspace: Workspace, name: str) -> Service:
    """The service of a name that has an address of its own. Raises NotFound or Conflict."""
    known = _known(workspace, name)
    if known.port is None or known.name == "panel":
        raise Conflict(f"service {name}", "it has no page", "a service with a port", "Its log says what it does.")
    return known


def answers(known: Service) -> tuple[bool, str]:
    """Whether its page can be opened now, and why not."""
    return healthy(known)


def _known(workspace: Workspace, name: str) -> Service:
    try:
        return service(name, workspace)
    except PilotError as error:
        raise NotFound(error.where, error.given[:100], error.allowed, error.remedy) from error


def _there(supervisor: Supervisor | None) -> Supervisor:
    if supervisor is None:
        raise Conflict("supervisord", "not on this machine", "a pod", "Start what you need in a shell.")
    return supervisor


def _row(known: Service, state: ServiceState | None) -> ServiceRow:
    """can_open says that it has a page and runs; whether it answers is asked when it is opened."""
    word = "missing" if not known.installed else state.state if state else "UNKNOWN"
    up = word in UP
    return ServiceRow(
        name=known.name,
        label=known.label,
        help=known.help,
        group=known.group,
        state=word,
        reason=state.exit_reason if state else "",
        since=state.since if state else None,
        pid=state.pid if state else None,
        port=known.port,
        autostart=known.autostart,
        pinned=known.pinned,
        installed=known.installed,
        can_start=state is not None and known.installed and not up and word != "STOPPING",
        can_stop=state is not None and up and not known.pinned,
        can_open=up and known.port is not None and known.name != "panel",
    )


def _native(workspace: Workspace, known: list[Service]) -> list[ServiceRow]:
    """What runs without a pod: the panel, and the processes that tell so in the workspace."""
    rows = []
    for one in known:
        row = _row(one, None)
        keeper = {"trainpilot": "worker", "courier": "courier"}.get(one.name)
        process = (
            Identity.parse((read_json(workspace.jobs / f"{keeper}.json") or {}).get("process")) if keeper else None
        )
        running = one.name == "panel" or (process is not None and process.alive())
        row.state, row.port = "RUNNING" if running else "STOPPED", None
        row.pid = process.pid if process is not None and running else None
        row.reason = "" if running or keeper else "It runs in the pod only."
        rows.append(row)
    return rows
