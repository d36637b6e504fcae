"""What keeps this pod on and what stops it: the banner of every page, and the buttons that keep or stop the pod.

No tab. Also notes that a person is there: every request of a logged-in browser, unless it is a poll of a window that
nobody has touched for a while (js/live.js says for how long).
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for

from controlpilot.auth.guard import who
from controlpilot.desk import desk
from controlpilot.idle import ask, read_idle
from controlpilot.life import mark_seen
from controlpilot.views import pod as views

blueprint = Blueprint("pod", __name__)
log = logging.getLogger(__name__)
UNTOUCHED = "X-Pilot-Untouched"  # seconds since somebody last touched the window that polls


@blueprint.get("/pod")
def banner() -> str:
    """The banner's content; empty while the pod is not about to be stopped."""
    return render_template("pod/_banner.html", pod=read_idle(desk().workspace))


@blueprint.post("/pod/stay")
def stay() -> Response:
    """Cancel every stop that is on its way."""
    ask(desk().workspace, "stay")
    return _said("The pod stays on.")


@blueprint.post("/pod/stop")
def stop() -> Response:
    """Stop the pod when nothing works any more."""
    views.stop_when_done(desk().workspace, desk().secrets)
    return _said("The pod is stopped when nothing works any more, after a countdown.")


def _said(text: str) -> Response:
    if request.headers.get("HX-Request") == "true":
        return make_response(render_template("pod/_said.html", text=text))
    return make_response(redirect(url_for("settings.index"), 303))


@blueprint.app_context_processor
def _shown() -> dict[str, Any]:
    """For base.html: what the banner says when a page is loaded."""
    return {"pod": read_idle(desk().workspace) if who() is not None else None}


@blueprint.after_app_request
def _somebody_is_here(answered: Response) -> Response:
    # The gateway's question, answered with 204, is a request of somebody who uses a service.
    if who() is not None or (request.endpoint == "auth.check" and answered.status_code == 204):
        given = request.headers.get(UNTOUCHED, "0")
        try:
            mark_seen(desk().secrets, float(given) if given.isdecimal() else 0.0)
        except OSError as error:
            log.warning("that somebody is here cannot be noted, an idle stop may come too early: %s", error)
    return answered
