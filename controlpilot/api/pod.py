"""/api/v1/pod: what stops this pod, and what is on its way."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.auth.guard import door
from controlpilot.desk import desk
from controlpilot.idle import ask
from controlpilot.views import endings as endings_view
from controlpilot.views import pod as views

resource = Resource("pod", "Stopping an idle pod, and which runs ended")
blueprint = resource.blueprint


class Again(BaseModel):
    model_config = ConfigDict(extra="forbid")
    password: str = Field(max_length=1024)


class Since(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: float | None = Field(
        default=None, ge=0, le=2**40, description="`until` of an earlier answer; without it nothing has ended yet"
    )


@resource.get("/pod")
def pod() -> views.PodView:
    """What is set and what is on its way; without any key."""
    return views.pod(desk().workspace, desk().secrets)


@resource.put("/pod/stop")
def set_stop(body: views.NewPodStop) -> views.PodStopRow:
    """Set what stops the pod; needs the password, once more."""
    return views.set_stop(door(), desk().secrets, body)


@resource.post("/pod/forget-keys")
def forget(body: Again) -> views.PodStopRow:
    """Forget saved API keys; needs the password, once more."""
    return views.forget_key(door(), desk().secrets, body.password)


@resource.post("/pod/stop", refuses=(409,))
def stop() -> None:
    """Stop the pod when nothing works any more."""
    views.stop_when_done(desk().workspace, desk().secrets)


@resource.post("/pod/stay")
def stay() -> None:
    """Cancel every stop that is on its way."""
    ask(desk().workspace, "stay")


@resource.get("/endings")
def endings(query: Since) -> endings_view.Endings:
    """Runs that ended since an earlier answer; for notifications in a browser."""
    return endings_view.endings(desk().workspace, query.after)
