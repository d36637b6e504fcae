"""The pod's stop as pages and API show and change it: what is set, what is on its way, and who may set it.

Minutes and switches are preferences of anybody who is logged in. What stops the pod, with its key or command, is set by
who repeats the password: neither an API token nor a borrowed window is enough to run a command here.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.auth import Doorkeeper
from controlpilot.idle import IdleState, ask, read_idle
from controlpilot.pod_stop import LABELS, Action, PodStop
from controlpilot.views.refusals import Conflict
from controlpilot.views.settings import check_password
from trainpilot.workspace import Workspace


class PodStopRow(BaseModel):
    """What stops the pod; never a key."""

    action: Action
    label: str
    pod: str = Field(description="Its ID at the provider")
    key: str = Field(description="Where the API key comes from: saved, environment, or nothing")
    command: list[str]
    ready: str = Field(description="What is missing; empty: nothing")


class PodView(BaseModel):
    """The pod's stop: what is set, and what is on its way."""

    stop: PodStopRow
    state: IdleState


class NewPodStop(BaseModel):
    """What shall stop the pod. Empty texts leave what is saved."""

    model_config = ConfigDict(extra="forbid")
    password: str = Field(max_length=1024, description="The panel's password, once more")
    action: Action
    pod: str = Field(default="", max_length=64)
    key: str = Field(default="", max_length=500, description="Kept 0600 and never shown again")
    command: list[str] = Field(default_factory=list, max_length=50, description="A program's path and its arguments")


def pod(workspace: Workspace, secrets: Path) -> PodView:
    """What is set and what is on its way."""
    return PodView(stop=stop_row(secrets), state=read_idle(workspace))


def stop_row(secrets: Path) -> PodStopRow:
    choice = PodStop(secrets).choice()
    about = vars(choice) | {"command": list(choice.command), "label": LABELS[choice.action]}
    return PodStopRow.model_validate(about)


def set_stop(door: Doorkeeper, secrets: Path, new: NewPodStop) -> PodStopRow:
    """Set what stops the pod. PilotError for a wrong password (throttled) and for what cannot be."""
    check_password(door, new.password)
    PodStop(secrets).save(new.action, pod=new.pod, key=new.key, command=new.command)
    return stop_row(secrets)


def forget_key(door: Doorkeeper, secrets: Path, password: str) -> PodStopRow:
    """Forget saved keys. PilotError for a wrong password."""
    check_password(door, password)
    PodStop(secrets).forget_key()
    return stop_row(secrets)


def stop_when_done(workspace: Workspace, secrets: Path) -> None:
    """Ask for a stop when nothing works any more. Conflict where nothing could do that."""
    row = stop_row(secrets)
    if row.action == "none" or row.ready:
        remedy = "Set on the Settings page what stops the pod."
        raise Conflict("pod", row.ready or "nothing is set that stops it", "an action that is set up", remedy)
    if not read_idle(workspace).live:
        remedy = "Start the service Courier, or in a shell: controlpilot courier."
        raise Conflict("pod", "the courier does not work, which stops it", "a courier at work", remedy)
    ask(workspace, "stop")
