"""The tab Logs: what there is, and one of them to read, follow and search (js/runs_log.js)."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template, request, send_file

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.views import logreader
from controlpilot.views.logs import LogList, logs, path_of

blueprint = Blueprint("logs", __name__)
NAV = Nav("Logs", 80, "logs")
FIRST = 16 << 10  # bytes a page comes with; the reader fetches more


@blueprint.get("/logs")
def index() -> Response:
    """The list; ?part=list gives only the list, for polling."""
    found = logs(desk().workspace)
    if request.args.get("part") == "list":
        return _list(found, request.args.get("kind", ""), request.args.get("name", ""))
    return make_response(render_template("logs/index.html", found=found, kind="", name="", log=None))


@blueprint.get("/logs/<kind>/<name>")
def one(kind: str, name: str) -> Response:
    """One log beside the list."""
    path = path_of(desk().workspace, kind, name)
    log = logreader.tail(path, FIRST)
    page = render_template("logs/index.html", found=logs(desk().workspace), kind=kind, name=name, log=log)
    return make_response(page)


@blueprint.get("/logs/<kind>/<name>/file")
def file(kind: str, name: str) -> Response:
    """The live file itself, as a download."""
    path = path_of(desk().workspace, kind, name)
    shown = name if kind == "service" else f"{name}.log"
    return send_file(path, mimetype="text/plain", as_attachment=True, download_name=f"{shown}.txt")


def _list(found: LogList, kind: str, name: str) -> Response:
    return make_response(render_template("logs/_list.html", found=found, kind=kind, name=name))
