"""The tab Help: the guides of docs/, to read and to search."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template, request, url_for
from markupsafe import Markup

from controlpilot.nav import Nav
from controlpilot.views import guides

blueprint = Blueprint("help", __name__)
NAV = Nav("Help", 100, "help")


@blueprint.get("/help")
def index() -> Response:
    """All guides, or what a search (?text=) finds in them."""
    text = request.args.get("text", "").strip()[: guides.LONGEST_QUERY]
    about = {"all": guides.guides(), "text": text, "hits": guides.search(text), "here": ""}
    return make_response(render_template("help/index.html", **about))


@blueprint.get("/help/<name>")
def guide(name: str) -> Response:
    """One guide."""
    one = guides.guide(name)
    # Markup: `guides.html` has escaped everything that the guide's author wrote.
    body = Markup(guides.html(name, lambda other: url_for("help.guide", name=other)))
    about = {"all": guides.guides(), "guide": one, "body": body, "text": "", "here": name}
    return make_response(render_template("help/guide.html", **about))
