"""The Settings tab. Every form answers by loading the page anew; what is wrong is said beside the form."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for

from controlpilot.auth.guard import door, who
from controlpilot.desk import desk
from controlpilot.idle import read_idle
from controlpilot.nav import Nav
from controlpilot.notices import Notices
from controlpilot.pod_stop import LABELS
from controlpilot.views import pod as pod_views
from controlpilot.views import settings as views
from trainpilot.errors import PilotError

blueprint = Blueprint("settings", __name__)
NAV = Nav("Settings", 90, "settings")
IDLE_CHOICES = [(10, "10 minutes"), (20, "20 minutes"), (30, "30 minutes"), (60, "1 hour"), (120, "2 hours")]


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
        idle_choices=_idle_choices(set_to.idle_minutes),
        actions=LABELS,
        pod_stop=pod_views.stop_row(desk().secrets),
        pod_state=read_idle(desk().workspace),
        tokens=views.tokens(door()),
        made=made,
        sessions=views.sessions(door(), session.digest if session else ""),
        channels=views.channels(Notices(desk().secrets)),
        from_environment=door().passwords.source == "environment",
    )


def _idle_choices(present: int | None) -> list[tuple[int, str]]:
    """The usual ones, and the one that is set where that is another."""
    known = [minutes for minutes, _ in IDLE_CHOICES]
    return IDLE_CHOICES if present is None or present in known else [(present, f"{present} minutes"), *IDLE_CHOICES]


@blueprint.post("/settings/money")
def money() -> Response:
    """Price, idle minutes and the switch; what notifications are sent for stays."""
    form = request.form
    given: dict[str, object] = {
        "price_per_hour": form.get("price_per_hour", "").strip().replace(",", ".") or None,
        "idle_minutes": form.get("idle_minutes") or None,
        "stop_when_done": "stop_when_done" in form,
    }
    return _keep(given)


@blueprint.post("/settings/notify-when")
def notify_when() -> Response:
    return _keep({"tell_when": request.form.getlist("tell_when")})


def _keep(given: dict[str, object]) -> Response:
    """Change a part of the preferences; a file that cannot be read is replaced, as the page has said."""
    try:
        before = views.preferences(desk().workspace).model_dump()
    except PilotError:
        before = {}
    views.keep(desk().workspace, views.Preferences.model_validate(before | given))
    return _anew()


@blueprint.post("/settings/pod-stop")
def pod_stop() -> Response:
    """What stops this pod; for who repeats the password."""
    form = request.form
    lines = [line.strip() for line in form.get("command", "").splitlines()]
    new = pod_views.NewPodStop.model_validate(
        {name: form.get(name, "") for name in ("password", "action", "pod", "key")}
        | {"command": [*filter(None, lines)]}
    )
    pod_views.set_stop(door(), desk().secrets, new)
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
