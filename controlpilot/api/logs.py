"""Logs of services, runs and jobs: the list, a part by an opaque place, a search."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import logreader
from controlpilot.views.logreader import LogPart, LogSearch
from controlpilot.views.logs import LogList, logs, path_of
from trainpilot.errors import PilotError

resource = Resource("logs", "Logs of services, runs and jobs")
blueprint = resource.blueprint


class Part(BaseModel):
    """Which part is wanted; without `after` and `before`, the end."""

    model_config = ConfigDict(extra="forbid")
    after: str | None = Field(None, max_length=40, description="`end` of an earlier answer")
    before: str | None = Field(None, max_length=40, description="`start` of an earlier answer")
    limit: int = Field(logreader.WINDOW, ge=256, le=logreader.LARGEST, description="About so many bytes")


class Search(BaseModel):
    """What is looked for. One call looks through a bounded part; `next` of its answer goes on."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1, max_length=200)
    before: str | None = Field(None, max_length=40, description="`next` of the last answer")
    limit: int = Field(200, ge=1, le=1000)


@resource.get("/logs")
def every() -> LogList:
    """All logs of services, and those of the newest runs and jobs."""
    return logs(desk().workspace)


@resource.get("/logs/<kind>/<name>")
def part(kind: str, name: str, query: Part) -> LogPart:
    """The end of a log, or what follows or comes before a place of it."""
    path = path_of(desk().workspace, kind, name)
    if query.after is not None and query.before is not None:
        raise PilotError("query", "after and before", "one of them", "Send one, or none for the end of the log.")
    if query.after is not None:
        return logreader.after(path, query.after, query.limit)
    if query.before is not None:
        return logreader.before(path, query.before, query.limit)
    return logreader.tail(path, query.limit)


@resource.get("/logs/<kind>/<name>/search")
def search(kind: str, name: str, query: Search) -> LogSearch:
    """Lines with a text, the newest first."""
    return logreader.search(path_of(desk().workspace, kind, name), query.text, query.before, query.limit)
