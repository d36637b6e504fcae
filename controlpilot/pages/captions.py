"""The captions of one dataset, a page below the Datasets tab: captioners, edits of all captions, sets and undo.

HTML only; captions one by one are edited on the dataset's own page.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.views import captions as view
from controlpilot.views import jobs
from controlpilot.views.captions import Option
from trainpilot.errors import PilotError

blueprint = Blueprint("captions", __name__)
_OPTION = "option-"  # before the names of a captioner's own options in the form


@blueprint.get("/datasets/<name>/captions")
def index(name: str) -> str:
    """The page. ?captioner= chooses a captioner, ?do= an edit, whose fields may be given too."""
    return _page(name, request.args)


def _page(
    name: str, given: MultiDict[str, str], problem: PilotError | None = None, shown: view.Shown | None = None
) -> str:
    found = view.page(desk().workspace, name, given.get("trigger", "")[:200])
    captioners = {one.name: one for one in found.captioners}
    operations = {one.name: one for one in found.operations}
    return render_template(
        "datasets/captions.html",
        page=found,
        captioner=captioners.get(given.get("captioner", "")) or captioners["blip"],
        operation=operations.get(given.get("do", "")) or operations["add-trigger"],
        given=given,
        sets=given.getlist("sets"),
        using=given.get("do") == "use",
        problem=problem.as_dict() if problem else None,
        shown=shown,
        done=given.get("done", "")[:300],
    )


@blueprint.get("/datasets/<name>/captions/job")
def job(name: str) -> Response:
    """The captioner at work, as a fragment; the page loads once more when it has ended."""
    found = view.captioning(desk().workspace, name)
    if found is None or found.job.status not in jobs.LIVE:
        return make_response("", 200, {"HX-Refresh": "true"})
    return make_response(render_template("datasets/_captioning.html", captioning=found, name=name))


@blueprint.post("/datasets/<name>/captions/write")
def write(name: str) -> Response:
    """Begin a captioning; where it cannot be, the form comes back and says why."""
    form = request.form
    chosen = next((one for one in view.captioners(desk().workspace) if one.name == form.get("captioner")), None)
    options = _values(chosen.options if chosen else [], form, _OPTION)
    params: dict[str, Any] = {"captioner": form.get("captioner", ""), "options": options}
    params |= {key: form[key].strip() for key in ("model", "trigger", "mode", "to_set", "batch") if form.get(key)}
    try:
        view.write(desk().workspace, name, params)
    except PilotError as error:
        return make_response(_page(name, form, error), getattr(error, "http_status", 400))
    return redirect(url_for("captions.index", name=name, captioner=form.get("captioner", "")), 303)


@blueprint.post("/datasets/<name>/captions/fetch")
def fetch(name: str) -> Response:
    """Fetch a captioner's model; its progress is shown with the other downloads."""
    view.fetch(desk().workspace, request.form.get("captioner", ""), request.form.get("model", ""))
    return redirect(url_for("models.index", _anchor="downloads"), 303)


@blueprint.post("/datasets/<name>/captions/<any(cancel, resume):do>/<ident>")
def act(name: str, do: str, ident: str) -> Response:
    """Stop the captioner, or let it go on."""
    jobs.act(desk().workspace, ident, "cancel" if do == "cancel" else "resume")
    if request.headers.get("HX-Request"):
        return make_response("", 200, {"HX-Refresh": "true"})
    return redirect(url_for("captions.index", name=name), 303)


@blueprint.post("/datasets/<name>/captions/preview")
def preview(name: str) -> Response:
    """What an edit would change, on the page itself."""
    form = request.form
    try:
        shown = view.preview(desk().workspace, name, form.get("do", ""), _params(form))
    except PilotError as error:
        return make_response(_page(name, form, error), getattr(error, "http_status", 400))
    return make_response(_page(name, form, shown=shown))


@blueprint.post("/datasets/<name>/captions/edit")
def edit(name: str) -> Response:
    """Make the changes that the preview showed."""
    form = request.form
    try:
        done = view.edit(desk().workspace, name, form.get("do", ""), _params(form), form.get("seen", ""))
    except PilotError as error:
        return make_response(_page(name, form, error), getattr(error, "http_status", 400))
    return _back(name, f"{done.about}: {done.files} files written")


@blueprint.post("/datasets/<name>/captions/<any(undo, redo):do>")
def turn(name: str, do: str) -> Response:
    """Undo the newest edit, or make it again."""
    leave = request.form.get("leave") == "1"
    try:
        done = view.turn(desk().workspace, name, back=do == "undo", leave_changed=leave)
    except PilotError as error:
        return make_response(_page(name, request.form, error), getattr(error, "http_status", 400))
    left = f", {len(done.left)} left as they are" if done.left else ""
    return _back(name, f"{done.about}: {'undone' if do == 'undo' else 'made again'}, {done.files} files{left}")


@blueprint.post("/datasets/<name>/captions/keep")
def keep(name: str) -> Response:
    """Keep the captions as a set."""
    try:
        made = view.keep(desk().workspace, name, request.form.get("set", "").strip())
    except PilotError as error:
        return make_response(_page(name, request.form, error), getattr(error, "http_status", 400))
    return _back(name, f"{made.captions} captions kept as {made.name}")


def _back(name: str, done: str) -> Response:
    return redirect(url_for("captions.index", name=name, done=done), 303)


def _params(form: MultiDict[str, str]) -> dict[str, Any]:
    """An edit's parameters from its form."""
    if form.get("do") == "use":
        return {"sets": form.getlist("sets")}
    chosen = next((one for one in view.operations() if one.name == form.get("do")), None)
    return _values(chosen.options if chosen else [], form)


def _values(options: list[Option], form: MultiDict[str, str], before: str = "") -> dict[str, Any]:
    """The fields that a form gives; one that is empty takes its default, unless it has to be given."""
    found: dict[str, Any] = {}
    for one in options:
        texts = form.getlist(before + one.name)
        text = texts[0] if texts else ""
        if one.kind == "switch":
            found[one.name] = text == "1"
        elif one.many:
            parts = [part.strip() for part in ",".join(texts).split(",") if part.strip()]
            if parts or one.required:
                found[one.name] = parts
        elif text or one.required:
            found[one.name] = text
    return found
