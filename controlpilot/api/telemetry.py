"""Telemetry: what the machine does now and did within the last day."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.desk import desk
from controlpilot.telemetry import History, Sample

resource = Resource("telemetry", "GPU, CPU, memory and disk")
blueprint = resource.blueprint


class Window(BaseModel):
    """How far to look back."""

    model_config = ConfigDict(extra="forbid")
    seconds: float = Field(86400, ge=10, le=86400, description="At most a day; the shorter, the finer")


@resource.get("/telemetry")
def now() -> Sample:
    """The newest sample."""
    return desk().telemetry.now()


@resource.get("/telemetry/history")
def history(query: Window) -> History:
    """The lines of the last hours."""
    return desk().telemetry.history(query.seconds)
