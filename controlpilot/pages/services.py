"""The Services tab: what runs, start and stop, and the way into a service's own page."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for

from controlpilot.auth.guard import door, is_secure, who
from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.views import services as views
from controlpilot.views.refusals import Conflict

blueprint = Blueprint("services", __name__)
NAV = Nav("Services", 20, "services")


@blueprint.get("/services")
def index() -> str:
    """The list; ?part=list gives only the list, for polling."""
    found = views.listing(desk().workspace, desk().supervisor)
    template = "services/_list.html" if request.args.get("part") == "list" else "services/index.html"
    return render_template(template, found=found)


@blueprint.post("/services/<name>/<any(start, stop, restart):do>")
def act(name: str, do: views.Do) -> Response:
    """A button of the list."""
    views.act(desk().workspace, desk().supervisor, name, do)
    return _list()


@blueprint.post("/services/<name>/autostart")
def autostart(name: str) -> Response:
    """The switch of the list."""
    views.set_autostart(desk().workspace, name, request.form.get("on") == "yes")
    return _list()


@blueprint.post("/services/<name>/install")
def install(name: str) -> Response:
    """The button of one that is not installed."""
    views.install(desk().workspace, name)
    return _list()


@blueprint.get("/services/<name>/open")
def open_one(name: str) -> Response:
    """Cross to the service's own origin with a ticket, as soon as it answers; until then a page that waits."""
    known = views.openable(desk().workspace, name)
    session = who()
    if session is None:
        raise Conflict(f"service {name}", "a token", "a browser's session", "Log in with the password.")
    row = views.one(desk().workspace, desk().supervisor, name)
    ready, why = views.answers(known) if row.can_open else (False, "it does not run")
    if not ready:
        return make_response(render_template("services/opening.html", row=row, why=why))
    ticket = door().tickets.issue(session.digest, known.name)
    origin = desk().settings.origin_of(known.name, known.port or 0, request.host, is_secure())
    return make_response(redirect(f"{origin}/.pilot/enter?{urlencode({'ticket': ticket, 'next': '/'})}", 303))


@blueprint.get("/services/<name>/opening")
def opening(name: str) -> Response:
    """What the waiting page polls: the state, and the way on once the service answers."""
    known = views.openable(desk().workspace, name)
    row = views.one(desk().workspace, desk().supervisor, name)
    ready, why = views.answers(known) if row.can_open else (False, "it does not run")
    answered = make_response(render_template("services/_opening.html", row=row, why=why))
    if ready:
        answered.headers["HX-Redirect"] = url_for("services.open_one", name=name)
    return answered


def _list() -> Response:
    if not request.headers.get("HX-Request"):
        return make_response(redirect(url_for("services.index"), 303))
    found = views.listing(desk().workspace, desk().supervisor)
    return make_response(render_template("services/_list.html", found=found))
