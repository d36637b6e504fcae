"""/api/v1/openapi.json: the description of everything else here."""

from __future__ import annotations

from typing import Any

from flask import current_app, request

from controlpilot.api import Resource
from controlpilot.api._openapi import describe

resource = Resource("description", "What this API offers")
blueprint = resource.blueprint


@resource.get("/openapi.json")
def openapi() -> dict[str, Any]:
    """This document."""
    return describe(current_app, request.path.removesuffix("/openapi.json"))
