"""Refusals with an HTTP status of their own, and every refusal as data for what a view returns.

The first are raised by the views, and the application answers with `http_status`; every other PilotError is the
request's mistake: 400.
"""

from __future__ import annotations

from pydantic import BaseModel

from trainpilot.errors import PilotError


class NotFound(PilotError):
    """What the URL names does not exist, or its name cannot be one."""

    http_status = 404


class Conflict(PilotError):
    """The thing exists, and its present state does not allow what was asked."""

    http_status = 409


class Problem(BaseModel):
    """The contract's error shape."""

    where: str
    given: str
    allowed: str
    remedy: str
    message: str

    @classmethod
    def of(cls, error: PilotError) -> Problem:
        return cls(
            where=error.where, given=error.given, allowed=error.allowed, remedy=error.remedy, message=error.message
        )
