"""Refusals with an HTTP status of their own. Raised by the views; the application answers with `http_status`.

Every other PilotError is the request's mistake: 400.
"""

from __future__ import annotations

from trainpilot.errors import PilotError


class NotFound(PilotError):
    """What the URL names does not exist, or its name cannot be one."""

    http_status = 404


class Conflict(PilotError):
    """The thing exists, and its present state does not allow what was asked."""

    http_status = 409
