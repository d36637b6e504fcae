"""Every error leaves the panel in one shape: JSON for programs and live parts, a page for a person who navigates.

`create_app` registers `handle`; views raise PilotError (400) or one of views/refusals.py with a status of its own.
"""

from __future__ import annotations

import errno
import logging
from typing import Any

from flask import Flask, Response, jsonify, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from trainpilot.errors import PilotError, Problems

log = logging.getLogger(__name__)
NO_ROOM = {
    errno.ENOSPC: "Free some space: empty the trash, or remove models and caches that are not needed.",
    errno.EDQUOT: "Free some space, or ask for a larger quota: empty the trash, remove models and caches.",
    errno.EROFS: "Mount the volume for writing, then restart the pod.",
}
REMEDIES = {
    400: "Correct the request.",
    404: "Check the address; the tabs lead to everything there is.",
    405: "Use one of the methods that are allowed here.",
    413: "Send less at once; large files go up in parts on the Datasets tab.",
    415: "Send JSON with Content-Type: application/json.",
}


def wants_page() -> bool:
    """Whether a person's browser asked for a whole page, rather than a script or a program for data."""
    if request.path.startswith("/api/") or request.headers.get("HX-Request"):
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html" and (
        "text/html" in request.accept_mimetypes.values()
    )


def answer(error: PilotError, status: int, headers: dict[str, str] | None = None) -> Response:
    """The error as JSON or as a page, with its status."""
    if wants_page():
        made = make_response(render_template("problem.html", error=error.as_dict(), status=status), status)
    else:
        made = make_response(jsonify(error=error.as_dict()), status)
    made.headers["Cache-Control"] = "no-store"
    for name, value in (headers or {}).items():
        made.headers[name] = value
    return made


def register(app: Flask) -> None:
    """Give the application its answers to errors."""
    app.register_error_handler(PilotError, _refused)
    app.register_error_handler(ValidationError, _not_valid)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(OSError, _no_room)
    app.register_error_handler(Exception, _broken)


def _refused(error: PilotError) -> Response:
    return answer(error, getattr(error, "http_status", 400), getattr(error, "http_headers", None))


def _not_valid(error: ValidationError) -> Response:
    return answer(problems_of(error), 400)


def problems_of(error: ValidationError, where: str = "") -> PilotError:
    """What pydantic found, as one problem for each place; what was given is shortened."""
    found = [
        PilotError(
            ".".join(str(part) for part in (*filter(None, [where]), *one["loc"])) or "the request",
            _shortened(one.get("input")),
            one["msg"],
            "Correct this value.",
        )
        for one in error.errors(include_url=False, include_context=False)
    ]
    return found[0] if len(found) == 1 else Problems(found)


def _shortened(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 120 else text[:117] + "..."


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return make_response(error.get_response())
    headers = {}
    if status == 405:
        headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or [])
    remedy = REMEDIES.get(status, "Try again.")
    problem = PilotError(request.path, error.description or error.name, error.name, remedy)
    return answer(problem, status, headers)


def _no_room(error: OSError) -> Response:
    """A volume that is full is no fault of ours, and the person can do something about it."""
    remedy = NO_ROOM.get(error.errno or 0)
    if remedy is None:
        return _broken(error)
    log.error("%s %s: %s", request.method, request.path, error)
    where = str(error.filename or request.path)
    return answer(PilotError(where, error.strerror or str(error), "a file that can be written", remedy), 507)


def _broken(error: Exception) -> Response:
    log.exception("%s %s broke", request.method, request.path)
    problem = PilotError(
        request.path, type(error).__name__, "an answer", "This is a fault of ours: see the panel's log."
    )
    return answer(problem, 500)
