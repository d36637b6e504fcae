"""The tab Dashboard: what is happening, is it all right, what do I do next."""

from __future__ import annotations

import psutil
from flask import Blueprint, Response, make_response, render_template, request

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.views.dashboard import Dashboard, dashboard
from controlpilot.views.run import PHASES
from trainpilot.errors import PilotError

blueprint = Blueprint("dashboard", __name__)
NAV = Nav("Dashboard", 10, "dashboard")


@blueprint.get("/")
def index() -> Response:
    """The tab; ?part=live gives what changes by itself, for polling."""
    here = desk()
    template = "dashboard/_live.html" if request.args.get("part") == "live" else "dashboard/index.html"
    answer = make_response(render_template(template, board=_board(), words=_words, now=here.clock()))
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _words(phase: str) -> str:
    return PHASES.get(phase, phase or "starting").capitalize()


def _board() -> Dashboard:
    here = desk()
    states, note = None, "No supervisord here: services are started and stopped on their own."
    if here.supervisor is not None:
        try:
            states, note = here.supervisor.states(), ""
        except PilotError as error:
            note = error.message
    # In the pod the session is the pod's: its first process; elsewhere it is this panel's.
    since = psutil.Process(1 if here.supervisor is not None else None).create_time()
    return dashboard(here.workspace, here.telemetry.now(), states, note, since)
