"""The tab Dashboard: what is happening, is it all right, what do I do next."""

from __future__ import annotations

import psutil
from flask import Blueprint, Response, make_response, render_template, request

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.pod_stop import PodStop
from controlpilot.views.dashboard import Dashboard, dashboard
from controlpilot.views.settings import preferences
from trainpilot.errors import PilotError

blueprint = Blueprint("dashboard", __name__)
NAV = Nav("Dashboard", 10, "dashboard")


@blueprint.get("/")
def index() -> Response:
    """The tab; ?part=now and ?part=more give what changes by itself, for polling."""
    part = request.args.get("part")
    template = f"dashboard/_{part}.html" if part in ("now", "more") else "dashboard/index.html"
    answer = make_response(render_template(template, board=_board()))
    answer.headers["Cache-Control"] = "no-store"
    return answer


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
    try:
        price = preferences(here.workspace).price_per_hour
    except PilotError:
        price = None  # the Settings page says what is wrong with the file
    # A machine that costs nothing by the hour, as far as we know, is nobody's to stop.
    choice = PodStop(here.secrets).choice()
    paid = price is not None or here.supervisor is not None
    ready = (choice.action != "none" and not choice.ready) if paid else None
    return dashboard(
        here.workspace, here.telemetry.now(), states, note, since, here.settings.run,
        price_per_hour=price, stop_ready=ready,
    )  # fmt: skip
