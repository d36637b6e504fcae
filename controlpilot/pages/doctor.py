"""The doctor's page of a dataset: score, findings with where and why, and their fixes. HTML only."""

from __future__ import annotations

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.views import doctor as view
from controlpilot.views import jobs

blueprint = Blueprint("doctor", __name__)
PURPOSES = {"": "anything", "face": "a person", "style": "a style", "object": "an object", "concept": "a concept"}


@blueprint.get("/datasets/<name>/doctor")
def index(name: str) -> Response:
    """The page; ?part=said gives what changes by itself, for polling."""
    found = view.consultation(desk().workspace, name)
    said = request.args.get("part") == "said"
    if said and not found.live:
        return make_response("", 200, {"HX-Refresh": "true"})  # nothing comes any more: the page stops asking
    template = "datasets/_doctor.html" if said else "datasets/doctor.html"
    answer = make_response(render_template(template, name=name, found=found, purposes=PURPOSES))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.post("/datasets/<name>/doctor")
def ask(name: str) -> Response:
    """Start a check."""
    form = request.form
    view.ask(desk().workspace, name, form.get("type", ""), form.get("trigger", "")[:1000])
    return _back(name)


@blueprint.post("/datasets/<name>/doctor/fix/<int:number>")
def fix(name: str, number: int) -> Response:
    """Start the fix of a finding."""
    view.mend(desk().workspace, name, number)
    return _back(name)


@blueprint.post("/datasets/<name>/doctor/undo")
def undo(name: str) -> Response:
    """Take the newest fix back."""
    view.take_back(desk().workspace, name)
    return _back(name)


@blueprint.post("/datasets/<name>/doctor/cancel/<ident>")
def cancel(name: str, ident: str) -> Response:
    """Cancel a check or a fix that waits or runs."""
    jobs.act(desk().workspace, ident, "cancel")
    return _back(name)


def _back(name: str) -> Response:
    return redirect(url_for("doctor.index", name=name), 303)
