"""The Test tab: LoRAs at several strengths side by side, with the same prompts and seeds. HTML only."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, send_file, url_for
from pydantic import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.problems import problems_of
from controlpilot.views import jobs
from controlpilot.views import test as view
from controlpilot.views.refusals import NotFound
from controlpilot.views.test import TestRequest
from controlpilot.views.trash import Trash
from trainpilot.errors import PilotError

blueprint = Blueprint("test", __name__)
NAV = Nav("Test", 70, "test")
KEPT = "private, max-age=31536000, immutable"
FRESH = "private, no-cache"
DEFAULTS = {
    "prompts": "",
    "negative": "",
    "seeds": "42",
    "steps": "20",
    "strengths": "0.5, 0.8, 1, 1.2",
    "with_base": "1",
}


@blueprint.get("/test")
def index() -> Response:
    """A new test, and the earlier ones. ?lora= and ?base= choose; ?like= takes over another test."""
    if request.args.get("part") == "earlier":
        return make_response(render_template("test/_earlier.html", tests=_earlier()))
    given: dict[str, Any] = DEFAULTS | {"loras": request.args.getlist("lora"), "base": request.args.get("base", "")}
    like = request.args.get("like", "")
    if like:
        given = _like(like)
    return make_response(_page(given))


def _page(given: dict[str, Any], problem: PilotError | None = None) -> str:
    return render_template(
        "test/index.html",
        choices=view.choices(desk().workspace),
        tests=_earlier(),
        given=given,
        problem=problem.as_dict() if problem else None,
        undo=_undo(),
    )


def _earlier() -> list[jobs.JobRow]:
    return jobs.listing(desk().workspace, view.KIND).jobs


def _undo() -> dict[str, str] | None:
    ident = request.args.get("undo", "")[:60]
    try:
        return {"id": ident, "why": Trash(desk().workspace).entry(ident).why} if ident else None
    except NotFound:
        return None


def _like(ident: str) -> dict[str, Any]:
    """The form as another test was started."""
    params = view.result(desk().workspace, ident).params
    columns = params.get("columns", [])
    loras = list(dict.fromkeys(column["lora"] for column in columns if column.get("lora")))
    strengths = list(dict.fromkeys(column["strength"] for column in columns if column.get("lora")))
    given = {
        name: params.get(name, "") for name in ("base", "negative", "steps", "guidance", "width", "height", "title")
    }
    return given | {
        "prompts": "\n".join(params.get("prompts", [])),
        "seeds": ", ".join(map(str, params.get("seeds", []))),
        "strengths": ", ".join(f"{strength:g}" for strength in strengths) or DEFAULTS["strengths"],
        "with_base": "1" if any(not column.get("lora") for column in columns) else "",
        "loras": loras,
    }


@blueprint.post("/test")
def start() -> Response:
    """Begin a test; where it cannot be, the form comes back with what was given and why."""
    form = request.form
    try:
        row = view.start(desk().workspace, TestRequest.model_validate(_fields(form)))
    except ValidationError as error:
        return make_response(_page(_given(form), problems_of(error)), 400)
    except PilotError as error:
        return make_response(_page(_given(form), error), getattr(error, "http_status", 400))
    return redirect(url_for("test.show", ident=row.id), 303)


def _fields(form: MultiDict[str, str]) -> dict[str, Any]:
    """The form's texts as the request's fields; what is empty takes its default."""
    given: dict[str, Any] = {
        "base": form.get("base", ""),
        "prompts": [line.strip() for line in form.get("prompts", "").splitlines() if line.strip()],
        "loras": form.getlist("loras"),
        "with_base": form.get("with_base") == "1",
        "seeds": _list(form.get("seeds", "")) or [42],
        "strengths": _list(form.get("strengths", "")) or [1.0],
    }
    names = ("negative", "steps", "guidance", "width", "height", "title")
    return given | {name: form[name].strip() for name in names if form.get(name, "").strip()}


def _list(text: str) -> list[str]:
    return [part for part in re.split(r"[\s,;]+", text) if part]


def _given(form: MultiDict[str, str]) -> dict[str, Any]:
    return {**form.to_dict(), "loras": form.getlist("loras")}


@blueprint.get("/test/<ident>")
def show(ident: str) -> Response:
    """A test and its pictures; ?part=matrix gives them alone, for polling."""
    found = view.result(desk().workspace, ident)
    if request.args.get("part") == "matrix":
        if found.job.status not in jobs.LIVE:
            # Nothing comes any more: the page loads once and stops asking.
            return make_response("", 200, {"HX-Refresh": "true"})
        return make_response(render_template("test/_matrix.html", test=found))
    return make_response(render_template("test/show.html", test=found, live=found.job.status in jobs.LIVE))


@blueprint.post("/test/<ident>/<do>")
def act(ident: str, do: str) -> Response:
    """Stop or resume a test, or move it to the trash."""
    place = desk().workspace
    if do == "trash":
        return redirect(url_for("test.index", undo=jobs.trash(place, ident).id), 303)
    if do not in ("cancel", "resume"):
        raise NotFound("test", do[:40], "cancel, resume or trash", "Choose one of these.")
    jobs.act(place, ident, "cancel" if do == "cancel" else "resume")
    if request.headers.get("HX-Request"):
        return make_response("", 200, {"HX-Refresh": "true"})
    return redirect(url_for("test.show", ident=ident), 303)


@blueprint.post("/test/undo/<ident>")
def undo(ident: str) -> Response:
    """Put a test back."""
    Trash(desk().workspace).restore(ident)
    return redirect(url_for("test.index"), 303)


@blueprint.get("/test/<ident>/pictures/<file>")
def picture(ident: str, file: str) -> Response:
    """One picture, with its prompt, seed and settings in the PNG."""
    return _sent(send_file(view.picture_file(desk().workspace, ident, file), mimetype="image/png"))


@blueprint.get("/test/<ident>/pictures/<file>/small")
def small(ident: str, file: str) -> Response:
    """Its thumbnail; the picture itself until that is made."""
    found = view.small_picture(desk().workspace, ident, file)
    if found is not None:
        return _sent(send_file(found, mimetype="image/webp"))
    answer = send_file(view.picture_file(desk().workspace, ident, file), mimetype="image/png")
    answer.headers["Cache-Control"] = FRESH
    return answer


def _sent(answer: Response) -> Response:
    answer.headers["Cache-Control"] = KEPT if request.args.get("v") else FRESH
    return answer
