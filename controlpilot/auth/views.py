"""The login page, the log-out, and the two questions that only the gateway asks."""

from __future__ import annotations

from flask import Blueprint, Response, abort, make_response, redirect, render_template, request, url_for

from controlpilot.auth.guard import (
    ANYWHERE,
    COOKIE,
    clear_cookie,
    door,
    landing,
    own_path,
    public,
    set_cookie,
    too_many,
    who,
)
from controlpilot.desk import desk
from trainpilot.errors import PilotError

blueprint = Blueprint("auth", __name__)
SERVICE_COOKIE = "pilot_service_"


@blueprint.get("/login")
@public(ANYWHERE)
def login() -> str | Response:
    """The login page."""
    if door().hosts.known(request.host) and door().sessions.of_cookies(request.cookies.getlist(COOKIE)):
        return make_response(redirect(landing(own_path(request.args.get("next"))), 303))
    return _page()


@blueprint.post("/login")
@public(ANYWHERE)
def enter() -> Response:
    """Log in with the password; the Host it was done at is known from now on."""
    wait = door().password_throttle.take()
    if wait is not None:
        refused = too_many(wait)
        return _refused(refused, 429, refused.http_headers)
    if not door().passwords.verify(request.form.get("password", "")):
        remedy = "Try again. It was printed in the log at the first start; controlpilot password sets a new one."
        return _refused(PilotError("password", "not the right one", "the panel's password", remedy), 401)
    door().password_throttle.give_back()
    door().hosts.learn(request.host)
    _, cookie = door().sessions.begin(request.headers.get("User-Agent", ""), request.remote_addr or "")
    answered = make_response(redirect(landing(own_path(request.form.get("next"))), 303))
    set_cookie(answered, COOKIE, cookie)
    return answered


@blueprint.post("/logout")
def leave() -> Response:
    """Log out: the session ends, and with it every service it has open."""
    if (session := who()) is not None:
        door().sessions.end(session.digest)
        desk().close_open_services()
    answered = make_response(redirect(url_for("auth.login"), 303))
    clear_cookie(answered, COOKIE)
    return answered


@blueprint.get("/auth/check")
@public(ANYWHERE)
def check() -> Response:
    """The gateway asks for every request to a service: 204, or 401."""
    service = _asked_service()
    cookies = request.cookies
    if service == "panel":
        session = door().sessions.of_cookies(cookies.getlist(COOKIE))
    else:
        session = door().sessions.of_service_cookies(cookies.getlist(SERVICE_COOKIE + service), service)
    return Response(status=204 if session else 401)


@blueprint.get("/auth/enter")
@public(ANYWHERE)
def enter_service() -> Response:
    """A ticket becomes the cookie of one service, on that service's own origin."""
    service = _asked_service()
    digest = door().tickets.take(request.args.get("ticket", ""), service)
    session = door().sessions.find(digest) if digest else None
    if session is None:
        text = "This link was used already or is older than half a minute. Open the service from the panel again.\n"
        return Response(text, 403, mimetype="text/plain")
    answered = make_response(redirect(own_path(request.args.get("next")), 303))
    set_cookie(answered, SERVICE_COOKIE + service, door().sessions.service_cookie(session, service))
    answered.headers["Referrer-Policy"] = "no-referrer"
    return answered


def _asked_service() -> str:
    """The service that the gateway asks for; nobody else may ask."""
    service = request.headers.get("X-Pilot-Service", "")
    if desk().settings.socket is None or not service:
        abort(404)
    return service


def _page(problem: PilotError | None = None) -> str:
    facts = {"problem": problem, "next": own_path(request.values.get("next")), "is_set": door().passwords.is_set}
    return render_template("login.html", **facts)


def _refused(problem: PilotError, status: int, headers: dict[str, str] | None = None) -> Response:
    answered = make_response(_page(problem), status)
    answered.headers.update(headers or {})
    return answered
