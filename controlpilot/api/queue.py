"""The queue: what runs, what waits and for what; order and pauses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.views import queue as queue_view
from controlpilot.views.queue import Do, QueueView

resource = Resource("queue", "The queue of runs")
blueprint = resource.blueprint


class Change(BaseModel):
    """A change of the queue. Without a run, pause and resume are for the whole queue."""

    model_config = ConfigDict(extra="forbid")
    do: Do
    run: str | None = Field(None, max_length=100)
    to: int | None = Field(None, ge=1, le=100_000, description="Place from 1, for `move`")


@resource.get("/queue")
def queue() -> QueueView:
    """The whole queue."""
    return queue_view.queue(desk().workspace, desk().supervisor)


@resource.post("/queue", refuses=(404, 409))
def change(body: Change) -> QueueView:
    """Move, pause, resume, or start although memory is short; answers with the queue as it will be."""
    queue_view.change(desk().workspace, body.do, body.run, body.to)
    return queue_view.queue(desk().workspace, desk().supervisor)


@resource.delete("/queue/<name>", refuses=(409,))
def remove(name: str) -> None:
    """Take a waiting run out; its folder stays."""
    queue_view.remove(desk().workspace, name)
