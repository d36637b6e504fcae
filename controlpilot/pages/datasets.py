"""The Datasets tab: what there is, one dataset with its pictures and captions, and the upload. HTML only."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, make_response, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as AnyResponse

from controlpilot.desk import desk
from controlpilot.measuring import measuring
from controlpilot.nav import Nav
from controlpilot.uploads import ENDINGS, Uploads
from controlpilot.views import dataset_changes as changes
from controlpilot.views.dataset_check import check
from controlpilot.views.dataset_folders import folder as dataset_folder
from controlpilot.views.dataset_folders import found_picture
from controlpilot.views.datasets import FILTERS, card, listing, page, pictures
from controlpilot.views.refusals import NotFound, Problem
from controlpilot.views.trash import Trash
from trainpilot.errors import PilotError

blueprint = Blueprint("datasets", __name__)
NAV = Nav("Datasets", 30, "datasets")
FOREVER = "private, max-age=31536000, immutable"


@blueprint.get("/datasets")
def index() -> str:
    """All datasets, and the upload."""
    place = desk().workspace
    return render_template(
        "datasets/index.html",
        cards=listing(place),
        uploads=[one for one in Uploads(place).all() if one.state != "done"],
        endings=sorted(ENDINGS),
        undo=_undo(),
        place=str(place.datasets / "images"),
    )


def _undo() -> dict[str, str] | None:
    """What a change that led here can be taken back with."""
    ident = request.args.get("undo", "")
    if not ident:
        return None
    try:
        return {"id": ident, "why": Trash(desk().workspace).entry(ident).why}
    except NotFound:
        return None


@blueprint.get("/datasets/-/cards")
def cards() -> str:
    """The list as a fragment, for thumbnails that came and uploads that ended."""
    return render_template("datasets/_cards.html", cards=listing(desk().workspace))


@blueprint.get("/datasets/-/thumbs/<key>.webp")
def thumbnail(key: str) -> AnyResponse:
    """A thumbnail by its picture's content, so it may be kept for ever."""
    plain = key.lower()
    path = measuring(desk().workspace).thumbnail(plain) if len(plain) == 64 and plain.isalnum() else None
    if path is None:
        raise NotFound("thumbnail", key[:80], "a picture that was measured", "Reload the page.")
    answer = send_file(path, mimetype="image/webp")
    answer.headers["Cache-Control"] = FOREVER
    return answer


def _filter() -> dict[str, Any]:
    only = request.args.get("only", "all")
    return {
        "number": request.args.get("page", 1, type=int),
        "query": request.args.get("q", "")[:200],
        "only": only if only in FILTERS else "all",
    }


@blueprint.get("/datasets/<name>")
def detail(name: str) -> str:
    """One dataset."""
    place = desk().workspace
    root = dataset_folder(place, name)
    chosen = _filter()
    context: dict[str, Any] = {"shown": None, "report": None, "problem": None}
    trigger = request.args.get("trigger", "")[:200]
    try:
        context["shown"] = page(place, name, **chosen)
        context["report"] = check(place, name, None, trigger)
    except PilotError as problem:
        context["problem"] = Problem.of(problem)
    return render_template(
        "datasets/detail.html",
        one=card(place, name, root, previews=0),
        chosen=chosen,
        trigger=trigger,
        undo=_undo(),
        **context,
    )


@blueprint.get("/datasets/<name>/grid")
def grid(name: str) -> str:
    """The pictures of one page, as a fragment."""
    chosen = _filter()
    return render_template(
        "datasets/_grid.html", name=name, chosen=chosen, shown=page(desk().workspace, name, **chosen)
    )


@blueprint.get("/datasets/<name>/report")
def report(name: str) -> str:
    """The check, as a fragment."""
    trigger = request.args.get("trigger", "")[:200]
    return render_template("datasets/_report.html", report=check(desk().workspace, name, None, trigger), name=name,
                           trigger=trigger)  # fmt: skip


@blueprint.get("/datasets/<name>/picture/<path:file>")
def original(name: str, file: str) -> AnyResponse:
    """A picture as it lies on disk, for looking at it large; as an attachment's type, never as a page."""
    _, _, found = found_picture(desk().workspace, name, file)
    answer = send_file(found.image, conditional=True)
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


@blueprint.post("/datasets/<name>/caption/<path:file>")
def caption(name: str, file: str) -> AnyResponse:
    """Write one caption; a script gets the picture's new card, a form is led back."""
    made = changes.write_caption(desk().workspace, name, file, request.form.get("text", ""), request.form.get("was"))
    if request.headers.get("X-Fragment"):
        html = render_template("datasets/_picture.html", one=made.picture, name=name, saved=True, undo=made.undo)
        return make_response(html)
    return _back(name, made.undo)


@blueprint.post("/datasets/<name>/remove/<path:file>")
def remove(name: str, file: str) -> AnyResponse:
    """Move a picture with its caption to the trash."""
    return _back(name, changes.remove_picture(desk().workspace, name, file).undo)


@blueprint.post("/datasets/<name>/rename")
def rename(name: str) -> AnyResponse:
    """Give the dataset other repeats or another name."""
    text = request.form.get("repeats", "").strip()
    if text and not text.isdigit():
        raise PilotError("repeats", text[:20], "a whole number from 1 to 10000", "Correct it.")
    made = changes.rename(
        desk().workspace, name, int(text) if text else None, request.form.get("subject", "").strip() or None
    )
    return redirect(url_for("datasets.detail", name=made.dataset), 303)


@blueprint.post("/datasets/<name>/remove")
def remove_all(name: str) -> AnyResponse:
    """Move the dataset to the trash."""
    made = changes.remove_dataset(desk().workspace, name)
    return redirect(url_for("datasets.index", undo=made.undo), 303)


@blueprint.post("/datasets/-/undo/<ident>")
def undo(ident: str) -> AnyResponse:
    """Take a change back, and show where it was."""
    place = desk().workspace
    entry = changes.undo(place, ident)
    if request.headers.get("X-Fragment"):
        name, file = request.form.get("name", ""), request.form.get("file", "")
        root, layout, found = found_picture(place, name, file)
        one = pictures(place, root, layout, [found])[0]
        return make_response(render_template("datasets/_picture.html", one=one, name=name))
    images = place.datasets / "images"
    first = entry.files[0].origin if entry.files else images
    inside = first.relative_to(images).parts if first.is_relative_to(images) else ()
    back = url_for("datasets.detail", name=inside[0]) if len(inside) > 1 else url_for("datasets.index")
    return redirect(back, 303)


def _back(name: str, ident: str) -> AnyResponse:
    """To the page that the change was made on."""
    kept: dict[str, Any] = {key: request.args[key] for key in ("page", "q", "only") if request.args.get(key)}
    return redirect(url_for("datasets.detail", name=name, undo=ident, **kept), 303)
