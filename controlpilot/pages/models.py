"""The Models tab: what is on disk, what can be fetched, downloads, and the tokens of model hosts. HTML only."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, send_file, url_for
from pydantic import ValidationError
from werkzeug.wrappers import Response

from controlpilot.desk import desk
from controlpilot.hub_tokens import HubTokens
from controlpilot.nav import Nav
from controlpilot.problems import problems_of
from controlpilot.views import jobs
from controlpilot.views import models as view
from controlpilot.views.models import DownloadRequest
from controlpilot.views.refusals import NotFound
from controlpilot.views.trash import Trash
from trainpilot.errors import PilotError

blueprint = Blueprint("models", __name__)
NAV = Nav("Models", 60, "models")
HOSTS = {"HF_TOKEN": "Hugging Face", "CIVITAI_TOKEN": "Civitai"}
RECENT = 86400.0  # seconds for which a download that ended is still listed


@blueprint.get("/models")
def index() -> Response:
    """The tab; ?part=downloads and ?part=disk give only that part, for polling."""
    part = request.args.get("part", "")
    if part == "downloads":
        return make_response(render_template("models/_downloads.html", downloads=_downloads()))
    if part == "disk":
        return make_response(render_template("models/_disk.html", bases=view.bases(desk().workspace)))
    return make_response(render_template("models/index.html", **_page()))


def _page(**more: Any) -> dict[str, Any]:
    place, tokens = desk().workspace, HubTokens(desk().secrets)
    search = request.args.get("search", "")[:100]
    return {
        "bases": view.bases(place),
        "loras": view.loras(place, search, request.args.get("page", 1, type=int)),
        "search": search,
        "offers": view.offers(place, tokens),
        "downloads": _downloads(),
        "tokens": [(name, HOSTS[name], source) for name, source in tokens.sources().items()],
        "undo": _undo(),
        "given": {},
        "problem": None,
        **more,
    }


def _downloads() -> list[jobs.JobRow]:
    """Those that wait, run or need a person, and what ended well not long ago."""
    rows = jobs.listing(desk().workspace, "download").jobs
    now = desk().clock()
    return [row for row in rows if row.status != "done" or now - (row.ended or 0) < RECENT]


def _undo() -> dict[str, str] | None:
    ident = request.args.get("undo", "")[:60]
    try:
        return {"id": ident, "why": Trash(desk().workspace).entry(ident).why} if ident else None
    except NotFound:
        return None


@blueprint.post("/models/download")
def download() -> Response:
    """Begin a download; where it cannot be, the page comes back with what was given and why."""
    given = {name: value.strip() for name, value in request.form.items() if value.strip()}
    try:
        fields: dict[str, Any] = dict(given)
        if "source" in fields:
            fields |= _source(fields.pop("source"))
        if "files" in fields:
            fields["files"] = fields["files"].split()
        view.download(desk().workspace, DownloadRequest.model_validate(fields))
    except ValidationError as error:
        return _again(problems_of(error), given)
    except PilotError as error:
        return _again(error, given)
    return redirect(url_for("models.index", _anchor="downloads"), 303)


def _source(given: str) -> dict[str, str]:
    """One field for both: an address is an address, the page of a repository its repository."""
    hub = "https://huggingface.co/"
    if given.startswith(hub) and "/resolve/" not in given and "/blob/" not in given:
        return {"repo": "/".join(given.removeprefix(hub).strip("/").split("/")[:2])}
    if "://" in given:
        return {"url": given.replace("/blob/", "/resolve/") if given.startswith(hub) else given}
    return {"repo": given}


def _again(error: PilotError, given: dict[str, str]) -> Response:
    page = render_template("models/index.html", **_page(given=given, problem=error.as_dict()))
    return make_response(page, getattr(error, "http_status", 400))


@blueprint.post("/models/downloads/<ident>/<do>")
def act(ident: str, do: str) -> Response:
    """Cancel, resume, or take off the list; a script gets the list anew, a form is led back."""
    place = desk().workspace
    undo = None
    if do == "remove":
        undo = jobs.trash(place, ident).id
    elif do == "cancel":
        jobs.act(place, ident, "cancel")
    elif do == "resume":
        jobs.act(place, ident, "resume")
    else:
        raise NotFound("download", do[:40], "cancel, resume or remove", "Choose one of these.")
    if request.headers.get("HX-Request"):
        return make_response(render_template("models/_downloads.html", downloads=_downloads()))
    return redirect(url_for("models.index", undo=undo, _anchor="downloads"), 303)


@blueprint.post("/models/tokens/<name>")
def token(name: str) -> Response:
    """Keep a token, or forget it."""
    try:
        view.save_token(HubTokens(desk().secrets), name, request.form.get("value", ""))
    except NotFound:
        raise
    except PilotError as error:
        return _again(error, {})
    return redirect(url_for("models.index", _anchor="tokens"), 303)


@blueprint.get("/models/loras/<name>")
def lora(name: str) -> str:
    """One LoRA with its metadata."""
    return render_template("models/lora.html", one=view.lora(desk().workspace, name))


@blueprint.get("/models/loras/<name>/file")
def lora_file(name: str) -> Response:
    """The file itself."""
    path = view.lora_file(desk().workspace, name)
    return send_file(
        path, mimetype="application/octet-stream", as_attachment=True, download_name=name, conditional=True
    )


@blueprint.post("/models/loras/<name>/trash")
def trash_lora(name: str) -> Response:
    """Move a LoRA into the trash."""
    return redirect(url_for("models.index", undo=view.trash_lora(desk().workspace, name).id), 303)


@blueprint.post("/models/undo/<ident>")
def undo(ident: str) -> Response:
    """Put something back."""
    Trash(desk().workspace).restore(ident)
    return redirect(url_for("models.index"), 303)
