"""Publishing a LoRA: the form, and how it goes. HTML only."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.hub_tokens import HubTokens
from controlpilot.views import jobs
from controlpilot.views import models as models_view
from controlpilot.views import publish as view
from trainpilot.errors import PilotError

blueprint = Blueprint("publish", __name__)
TEXTS = ("repo", "licence", "trigger", "message")


@blueprint.get("/models/loras/<name>/publish")
def index(name: str) -> Response:
    """The page; ?part=said gives what changes by itself, for polling."""
    if request.args.get("part") != "said":
        return _page(name, {"private": "1", "samples": "1"})
    told = view.publications(desk().workspace, name)
    if not any(one.job.status in jobs.LIVE for one in told):
        return make_response("", 200, {"HX-Refresh": "true"})  # nothing comes any more: the page stops asking
    return make_response(render_template("models/_published.html", name=name, told=told))


@blueprint.post("/models/loras/<name>/publish")
def start(name: str) -> Response:
    """Start it; where it cannot be, the form comes back with what was given and why."""
    form = request.form
    params: dict[str, Any] = {key: form.get(key, "").strip() for key in TEXTS}
    params |= {key: form.get(key) == "1" for key in ("private", "samples", "update", "without_tags")}
    try:
        view.publish(desk().workspace, name, params)
    except PilotError as error:
        return _page(name, form.to_dict(), error)
    return redirect(url_for("publish.index", name=name), 303)


@blueprint.post("/models/loras/<name>/publish/<ident>/<any(cancel, resume):do>")
def act(name: str, ident: str, do: jobs.Do) -> Response:
    """Cancel an upload, or try one again."""
    jobs.act(desk().workspace, ident, do)
    return redirect(url_for("publish.index", name=name), 303)


def _page(name: str, given: dict[str, str], problem: PilotError | None = None) -> Response:
    place = desk().workspace
    told = view.publications(place, name)
    page = render_template(
        "models/publish.html",
        one=models_view.lora(place, name),
        name=name,
        told=told,
        live=any(one.job.status in jobs.LIVE for one in told),
        token=HubTokens(desk().secrets).sources().get("HF_TOKEN"),
        given=given,
        problem=problem.as_dict() if problem else None,
    )
    return make_response(page, getattr(problem, "http_status", 400) if problem else 200)
