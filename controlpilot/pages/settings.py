"""The Settings tab. Every form answers by loading the page anew; what is wrong is said beside the form."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for

from controlpilot.auth.guard import door, who
from controlpilot.desk import desk
from controlpilot.nav import Nav
from controlpilot.notices import Notices
from controlpilot.views import settings as views
from trainpilot.errors import PilotError

blueprint = Blueprint("settings", __name__)
NAV = Nav("Settings", 90, "settings")


@blueprint.get("/settings")
def index() -> str:
    """The tab."""
    return _page()


def _page(made: views.NewToken | None = None) -> str:
    session = who()
    trouble: PilotError | None = None
    try:
        set_to = views.preferences(desk().workspace)
    except PilotError as error:
        set_to, trouble = views.Preferences(), error
    return render_template(
        "settings/index.html",
        set_to=set_to,
        trouble=trouble,
        events=views.EVENTS,
        tokens=views.tokens(door()),
        made=made,
        sessions=views.sessions(door(), session.digest if session else ""),
        channels=views.channels(Notices(desk().secrets)),
        from_environment=door().passwords.source == "environment",
    )


@blueprint.post("/settings/preferences")
def preferences() -> Response:
    price = request.form.get("price_per_hour", "").strip().replace(",", ".")
    given = {"price_per_hour": price or None, "tell_when": request.form.getlist("tell_when")}
    views.keep(desk().workspace, views.Preferences.model_validate(given))
    return _anew()


@blueprint.post("/settings/password")
def password() -> Response:
    if request.form.get("new") != request.form.get("again"):
        raise PilotError("new password", "two different ones", "the same twice", "Type it once more.")
    views.change_password(door(), request.form.get("old", ""), request.form.get("new", ""))
    desk().close_open_services()
    return _anew()


@blueprint.post("/settings/tokens")
def token() -> str:
    """The page with the new token in it: the only time that it is shown."""
    return _page(views.new_token(door(), request.form.get("name", "")))


@blueprint.post("/settings/tokens/<ident>/revoke")
def revoke(ident: str) -> Response:
    door().tokens.revoke(ident)
    return _anew()


@blueprint.post("/settings/sessions/end")
def end_sessions() -> Response:
    session = who()
    door().sessions.end_all(session.digest if session else "")
    desk().close_open_services()
    return _anew()


@blueprint.post("/settings/notifications")
def add_channel() -> Response:
    Notices(desk().secrets).add(request.form.get("name", ""), request.form.get("url", ""))
    return _anew()


@blueprint.post("/settings/notifications/<ident>/<any(test, remove):do>")
def change_channel(ident: str, do: str) -> Response:
    notices = Notices(desk().secrets)
    if do == "remove":
        notices.remove(ident)
        return _anew()
    notices.test(ident)
    return make_response(render_template("settings/_sent.html"))


def _anew() -> Response:
    if request.headers.get("HX-Request"):
        return Response(status=204, headers={"HX-Refresh": "true"})
    return make_response(redirect(url_for("settings.index"), 303))
