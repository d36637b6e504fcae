"""/api/v1/services: the pod's services."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import services as views
from controlpilot.views.jobs import JobRow

resource = Resource("services", "What runs in the pod, started and stopped by supervisord")
blueprint = resource.blueprint


class After(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: int | None = Field(
        None, ge=0, le=2**53, description="A byte, as an earlier answer's `end`; else the last part"
    )


class Act(BaseModel):
    model_config = ConfigDict(extra="forbid")
    do: views.Do


class Autostart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    autostart: bool


class Install(BaseModel):
    model_config = ConfigDict(extra="forbid")
    do: Literal["install", "remove"] = "install"


@resource.get("/services")
def listing() -> views.ServiceList:
    """Every service, with its state."""
    return views.listing(desk().workspace, desk().supervisor)


@resource.get("/services/<name>")
def one(name: str) -> views.ServiceRow:
    """One service."""
    return views.one(desk().workspace, desk().supervisor, name)


@resource.post("/services/<name>/state", refuses=(409, 503))
def act(name: str, body: Act) -> views.ServiceRow:
    """Start, stop or restart one; the answer may still say STARTING or STOPPING."""
    return views.act(desk().workspace, desk().supervisor, name, body.do)


@resource.put("/services/<name>/autostart", refuses=(409,))
def autostart(name: str, body: Autostart) -> views.ServiceRow:
    """Whether it starts with the pod, from the next start on."""
    views.set_autostart(desk().workspace, name, body.autostart)
    return views.one(desk().workspace, desk().supervisor, name)


@resource.post("/services/<name>/install", status=202, refuses=(409,))
def install(name: str, body: Install) -> JobRow:
    """Install or remove one that is installed on demand: a job does it."""
    return views.install(desk().workspace, name, body.do)


@resource.get("/services/<name>/log", refuses=(409, 503))
def log(name: str, query: After) -> views.ServiceLog:
    """A part of its output, by exact offset."""
    return views.log(desk().workspace, desk().supervisor, name, query.after)
