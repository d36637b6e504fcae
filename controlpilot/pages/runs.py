"""The Runs tab: queue and history, and one run with its lines, samples, checkpoints, log and configuration. HTML only.

What is shown comes from the views; numbers for the charts and lines of the log come from the API of the same views.
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any, cast, get_args

from flask import Blueprint, make_response, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.views import logreader, run_actions, run_configuration, samples
from controlpilot.views import queue as queue_view
from controlpilot.views import run as run_view
from controlpilot.views.refusals import NotFound
from controlpilot.views.run import PHASES, RunDetail
from controlpilot.views.run_actions import About
from controlpilot.views.runs import Show, Sort, folder_of, names, runs
from trainpilot.errors import PilotError

blueprint = Blueprint("runs", __name__)
NAV = Nav("Runs", 50, "runs")
FRESH = "private, no-cache"  # kept by the browser, asked for again each time: 304 where nothing changed
KEPT = "private, max-age=31536000, immutable"  # for addresses that carry the file's time
DRAWN = 64  # parts of runs kept as HTML: many windows that watch one run cost what one does
_DRAWN: dict[str, str] = {}
_DRAWN_LOCK = threading.Lock()
# The report is one file with its pictures and style in it; nothing in it may run or load.
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


# --- the list and the queue -------------------------------------------------------------------------------------------


@blueprint.get("/runs")
def index() -> Response:
    """The tab; ?part=list or ?part=queue give only that part, for polling."""
    part = request.args.get("part", "")
    if part == "queue":
        return _fragment(render_template("runs/_queue.html", **_queue()))
    chosen = {
        "show": _one_of(Show, "show", "all"),
        "text": request.args.get("text", "")[:100],
        "tag": request.args.get("tag", "")[:40],
        "sort": _one_of(Sort, "sort", "newest"),
    }
    page = request.args.get("page", 1, type=int)
    found = runs(desk().workspace, page=page, **cast(dict[str, Any], chosen))
    here = url_for("runs.index", part="list", page=page, **cast(dict[str, Any], chosen))
    if part == "list":
        return _fragment(render_template("runs/_list.html", list=found, chosen=chosen))
    trashed = request.args.get("trashed", "")[:40]
    return make_response(
        render_template("runs/index.html", list=found, chosen=chosen, here=here, trashed=trashed, **_queue())
    )


def _one_of(kind: Any, name: str, otherwise: str) -> str:
    """A choice of the URL; what is none of them is the usual one, since an old bookmark is no mistake."""
    given = request.args.get(name, otherwise)
    return given if given in get_args(kind) else otherwise


def _queue() -> dict[str, Any]:
    shown = queue_view.queue(desk().workspace, desk().supervisor)
    return {"queue": shown, "words": _phase_words, "queue_change": _queue_change}


def _phase_words(phase: str) -> str:
    return PHASES.get(phase, phase or "starting").capitalize()


def _queue_change(do: str, name: str, off: bool = False) -> dict[str, Any]:
    """Attributes of a button that changes the queue."""
    return {
        "hx-post": url_for("runs.change_queue"),
        "hx-vals": json.dumps({"do": do, "run": name}),
        "hx-target": "#queue",
        "hx-swap": "innerMorph",
        "disabled": True if off else None,
    }


@blueprint.post("/queue")
def change_queue() -> Response:
    """Move, pause, resume or remove; answers with the queue as it will be."""
    do, name = request.form.get("do", ""), request.form.get("run") or None
    if do == "remove" and name:
        queue_view.remove(desk().workspace, name)
    elif do in get_args(queue_view.Do):
        queue_view.change(desk().workspace, cast(queue_view.Do, do), name, request.form.get("to", type=int))
    else:
        raise PilotError(
            "queue", repr(do[:20]), ", ".join((*get_args(queue_view.Do), "remove")), "Choose one of these."
        )
    if not _by_htmx():
        return redirect(url_for("runs.index"), 303)
    return make_response(render_template("runs/_queue.html", **_queue()))


@blueprint.post("/undo-run/<ident>")
def undo(ident: str) -> Response:
    """Put a run back from the trash."""
    name = run_actions.restore(desk().workspace, ident)
    return redirect(url_for("runs.overview", name=name), 303)


# --- one run ----------------------------------------------------------------------------------------------------------


@blueprint.get("/runs/<name>")
def overview(name: str) -> Response:
    """Progress, lines, newest samples, checkpoints, notes."""
    place = desk().workspace
    page = render_template(
        "runs/overview.html",
        **_run(name, "overview"),
        matrix=samples.matrix(folder_of(place, name), rows=1),
        others=names(place, but=name),
    )
    return make_response(page)


@blueprint.get("/runs/<name>/live")
def live(name: str) -> Response:
    """A part of a run's pages, for polling: actions, now, pictures or checkpoints. 304 where nothing changed."""
    part = request.args.get("part", "now")
    if part not in ("actions", "now", "pictures", "checkpoints"):
        raise NotFound("part", repr(part[:20]), "actions, now, pictures, checkpoints", "Reload the page.")
    path = folder_of(desk().workspace, name)
    about = "\0".join((str(path), request.script_root, part, run_view.signature(path)))
    mark = hashlib.sha256(about.encode()).hexdigest()[:24]
    if mark in request.if_none_match:
        return Response(status=304, headers={"ETag": f'"{mark}"', "Cache-Control": FRESH})
    html = _DRAWN.get(mark)
    complete = html is not None
    if html is None:
        html, complete = _draw(name, path, part)
        if complete:
            _keep(mark, html)
    answer = make_response(html)
    answer.headers["Cache-Control"] = FRESH
    if complete:
        answer.set_etag(mark)
    return answer


def _draw(name: str, path: Path, part: str) -> tuple[str, bool]:
    """A part as HTML, and whether everything was read for it."""
    detail = run_view.detail(desk().workspace, name)
    about: dict[str, Any] = {"run": detail}
    if part == "pictures":
        about["matrix"] = samples.matrix(path, rows=1)
    return render_template(f"runs/_{part}.html", **about), detail.read_all


def _keep(mark: str, html: str) -> None:
    with _DRAWN_LOCK:
        _DRAWN[mark] = html
        while len(_DRAWN) > DRAWN:
            del _DRAWN[next(iter(_DRAWN))]


@blueprint.get("/runs/<name>/samples")
def samples_page(name: str) -> Response:
    """All samples as a matrix; ?before=STEP goes on with older ones; ?part=matrix gives only the matrix."""
    path = folder_of(desk().workspace, name)
    before = request.args.get("before", type=int)
    found = samples.matrix(path, before)
    oldest = found.steps[-1] if found.steps else 0
    about = {
        "matrix": found,
        "before": before,
        "older": bool(samples.matrix(path, oldest, rows=1).steps) if found.steps else False,
        "here_url": url_for("runs.samples_page", name=name, before=before, part="matrix"),
    }
    if request.args.get("part") == "matrix":
        detail = run_view.detail(desk().workspace, name)
        return _fragment(render_template("runs/_matrix.html", run=detail, **about))
    return make_response(render_template("runs/samples.html", **_run(name, "samples"), **about))


@blueprint.get("/runs/<name>/samples/<file>")
def sample(name: str, file: str) -> Response:
    """A sample's PNG."""
    return _picture(samples.file_of(folder_of(desk().workspace, name), file), "image/png")


@blueprint.get("/runs/<name>/samples/<file>/small")
def sample_small(name: str, file: str) -> Response:
    """Its thumbnail; the picture itself until that is made."""
    place = desk().workspace
    path = folder_of(place, name)
    small = samples.small(place, path, file)
    if small is not None:
        return _picture(small, "image/webp")
    answer = _picture(samples.file_of(path, file), "image/png")
    answer.headers["Cache-Control"] = FRESH
    return answer


def _picture(path: Path, kind: str) -> Response:
    answer = send_file(path, mimetype=kind)
    answer.headers["Cache-Control"] = KEPT if request.args.get("v") else FRESH
    return answer


@blueprint.get("/runs/<name>/log")
def log(name: str) -> Response:
    """The end of the log; what follows comes through the API."""
    path = folder_of(desk().workspace, name)
    return make_response(render_template("runs/log.html", **_run(name, "log"), log=logreader.tail(path / "log.txt")))


@blueprint.get("/runs/<name>/log/file")
def log_file(name: str) -> Response:
    """The log's newest segment as it is."""
    path = folder_of(desk().workspace, name) / "log.txt"
    if path.is_symlink() or not path.is_file():
        raise NotFound("log", "nothing is written yet", "the log of a run that has begun", "Start the run.")
    return send_file(path, mimetype="text/plain", as_attachment=True, download_name=f"{name}_log.txt", max_age=0)


@blueprint.get("/runs/<name>/configuration")
def configuration(name: str) -> Response:
    """All settings with their sources, and the difference to another run (?other=RUN)."""
    place, other = desk().workspace, request.args.get("other", "")[:100]
    about: dict[str, Any] = {"others": names(place, but=name), "other_name": other, "wrong": None, "differences": []}
    folder_of(place, name)
    try:
        about["configuration"] = run_configuration.configuration(place, name)
        if other:
            about["differences"] = run_configuration.difference(place, name, other)
    except NotFound:
        raise
    except PilotError as error:
        about["wrong"] = error
    return make_response(render_template("runs/configuration.html", **_run(name, "configuration"), **about))


@blueprint.get("/runs/<name>/report")
def report(name: str) -> Response:
    """The report, as a page of its own that may load and run nothing."""
    path = folder_of(desk().workspace, name) / "report" / "index.html"
    if path.is_symlink() or not path.is_file():
        raise NotFound("report", "not made yet", "a run that has ended well", "See sampling.evaluate_at_end.")
    answer = send_file(path, mimetype="text/html", max_age=0)
    answer.headers["Content-Security-Policy"] = REPORT_POLICY
    return answer


@blueprint.get("/runs/<name>/result")
def result(name: str) -> Response:
    """The finished LoRA; ?form=diffusers for the other naming."""
    ending = ".diffusers.safetensors" if request.args.get("form") == "diffusers" else ".safetensors"
    path = folder_of(desk().workspace, name) / f"{name}{ending}"
    if path.is_symlink() or not path.is_file():
        raise NotFound("result", "not made yet", "a run that has ended well", "Its checkpoints can be downloaded.")
    return _download(path)


@blueprint.get("/runs/<name>/checkpoints/<int:step>/lora")
def checkpoint(name: str, step: int) -> Response:
    """The LoRA of a checkpoint."""
    return _download(run_view.checkpoint_file(folder_of(desk().workspace, name), step))


def _download(path: Path) -> Response:
    return send_file(path, mimetype="application/octet-stream", as_attachment=True, download_name=path.name, max_age=0)


# --- what a person does -----------------------------------------------------------------------------------------------

_ASKED = {
    "stop": "Asked to stop. It ends after the step it is at, with that step saved; you can resume it.",
    "save": "Asked to save. The checkpoint appears below after the next step.",
    "sample": "Asked for samples. They appear below after the next step.",
}


@blueprint.post("/runs/<name>/ask/<kind>")
def ask(name: str, kind: str) -> Response:
    """Ask a live run to stop, save or sample."""
    run_actions.request(desk().workspace, name, run_actions.request_kind(kind))
    return _said(name, _ASKED[kind])


@blueprint.post("/runs/<name>/resume")
def resume(name: str) -> Response:
    """Into the queue, with changes (one `section.key=value` a line) where given."""
    lines = [line.strip() for line in request.form.get("changes", "").splitlines()]
    changes = [line for line in lines if line and not line.startswith("#")]
    return _said(name, run_actions.resume(desk().workspace, name, changes))


@blueprint.post("/runs/<name>/unqueue")
def unqueue(name: str) -> Response:
    """Out of the queue; the folder stays."""
    queue_view.remove(desk().workspace, name)
    return _said(name, "It is out of the queue. Resume puts it back.")


@blueprint.post("/runs/<name>/about")
def about(name: str) -> Response:
    """Star, title, tags, notes."""
    given = request.form
    tags = given["tags"].split(",") if "tags" in given else None
    star, stop_pod = ({"1": True, "0": False}.get(given.get(name, "")) for name in ("star", "stop_pod"))
    try:
        changed = About(title=given.get("title"), notes=given.get("notes"), tags=tags, star=star, stop_pod=stop_pod)
    except ValueError as error:
        problem = "title of 120, notes of 20,000 letters, 20 tags at most"
        raise PilotError("name and notes", "too long", problem, "Shorten it.") from error
    run_actions.describe(desk().workspace, name, changed)
    if given.get("answer") == "star":
        return make_response(render_template("runs/_star.html", run=run_view.detail(desk().workspace, name).run))
    if given.get("answer") == "pod":
        said = (
            "The pod is stopped after this run, once nothing else works." if stop_pod else "The pod stays on after it."
        )
        return _said(name, said)
    if _by_htmx():
        return make_response("Kept.")
    return redirect(url_for("runs.overview", name=name), 303)


@blueprint.post("/runs/<name>/trash")
def trash(name: str) -> Response:
    """Into the trash; the list offers to undo it."""
    undo_ = run_actions.trash(desk().workspace, name)
    return _go(url_for("runs.index", trashed=undo_.id))


def _run(name: str, here: str) -> dict[str, Any]:
    """What the frame of a run's pages needs."""
    detail: RunDetail = run_view.detail(desk().workspace, name)
    return {"run": detail, "here": here, "links": _links(name)}


def _links(name: str) -> dict[str, str]:
    return {
        "series": url_for("api_runs.series", name=name),
        "series_of_other": url_for("api_runs.series", name="RUN"),
        "log": url_for("api_runs.log", name=name),
        "log_search": url_for("api_runs.log_search", name=name),
        "log_file": url_for("runs.log_file", name=name),
    }


def _said(name: str, text: str) -> Response:
    """One sentence for the place beside the button; without scripts, the run's page."""
    if _by_htmx():
        return make_response(render_template("runs/_said.html", text=text))
    return redirect(url_for("runs.overview", name=name), 303)


def _go(url: str) -> Response:
    if _by_htmx():
        return Response(status=204, headers={"HX-Redirect": url})
    return redirect(url, 303)


def _by_htmx() -> bool:
    return request.headers.get("HX-Request") == "true"


def _fragment(html: str) -> Response:
    answer = make_response(html)
    answer.headers["Cache-Control"] = FRESH
    answer.add_etag()
    return answer.make_conditional(request)
