"""Asked before every request: is this host ours, does a change come from our own page, who is logged in.

Everything is closed unless its view says `@public`. `create_app` calls `register`; pages and API know nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, g, make_response, redirect, request, url_for

from controlpilot.auth import Doorkeeper
from controlpilot.auth.sessions import LONGEST_DAYS, Session
from controlpilot.desk import desk
from controlpilot.problems import answer, wants_page
from trainpilot.errors import PilotError

COOKIE = "pilot_session"
SAFE = ("GET", "HEAD", "OPTIONS")
ANYWHERE = "anywhere"  # also for a host that nobody knows: the login page and what it is made of
HERE = "here"  # without a login, but only for a known host
Function = TypeVar("Function", bound=Callable[..., Any])
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]{0,1999}")  # printable ASCII without a backslash


class NotAllowed(PilotError):
    """A login is missing, or the request came from somewhere else."""

    def __init__(self, where: str, given: str, allowed: str, remedy: str, status: int) -> None:
        super().__init__(where, given, allowed, remedy)
        self.http_status = status
        self.http_headers: dict[str, str] = {}


def public(where: str) -> Callable[[Function], Function]:
    """Leave a view open without a login: HERE, or ANYWHERE."""

    def mark(view: Function) -> Function:
        view.open_to = where  # type: ignore[attr-defined]
        return view

    return mark


def register(app: Flask) -> None:
    """Put the guard before every request and the headers on every answer."""
    app.before_request(_guard)
    app.after_request(_headers)


def who() -> Session | None:
    """The session of the present request; None for a token."""
    return g.get("session")


def door() -> Doorkeeper:
    return desk().door


def _guard() -> Response | None:
    view = current_app.view_functions.get(request.endpoint or "")
    open_to = ANYWHERE if request.endpoint == "static" else getattr(view, "open_to", "")
    if open_to != ANYWHERE and not door().hosts.known(request.host):
        return _unknown_host()
    bearer = request.headers.get("Authorization")
    if request.method not in SAFE and (bearer is None or open_to) and not from_own_page():
        given = request.headers.get("Origin") or request.headers.get("Sec-Fetch-Site") or "no Origin"
        remedy = "Change things from the panel's own pages, or send a token as Authorization: Bearer."
        raise NotAllowed("Origin", given[:200], request.host[:200], remedy, 403)
    if open_to:
        return None
    if bearer is not None:
        _check_token(bearer)
        return None
    g.session = door().sessions.of_cookies(request.cookies.getlist(COOKIE))
    return None if g.session else _not_logged_in()


def from_own_page() -> bool:
    """Whether the browser says that one of this panel's own pages sends this request. Other ports of the same name
    are other origins: services run foreign code there."""
    site = request.headers.get("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none"):
        return False
    origin = request.headers.get("Origin")
    if origin is None:
        return site == "same-origin"
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False  # not even an address
    # A TLS proxy that nobody named makes an https page look as if it came over http, but never the other way round.
    if parts.scheme not in (("https",) if is_secure() else ("http", "https")):
        return False
    return _with_port(parts.scheme, parts.netloc) == _with_port(parts.scheme, request.host)


def _with_port(scheme: str, netloc: str) -> str:
    """A host with its port, also where that is the scheme's own."""
    netloc = netloc.lower()
    default = ":443" if scheme == "https" else ":80"
    return netloc if re.search(r":\d+$", netloc) else netloc + default


def is_secure() -> bool:
    """Whether the browser speaks TLS, to us or to a proxy that is believed."""
    template = desk().settings.url_template or ""
    published = urlsplit(template.format(port=desk().settings.port, service="panel"))
    return request.is_secure or (published.scheme == "https" and published.netloc == request.host)


def own_path(given: str | None) -> str:
    """Where to go after the login: a path of this panel, else its start. Never another host, never a header."""
    return given if given and OWN_PATH.fullmatch(given) else "/"


def landing(path: str) -> str:
    """A path of ours as the browser must ask for it: with the prefix we are published under."""
    return request.script_root + path


def set_cookie(answered: Response, name: str, value: str) -> None:
    """A cookie for this host alone; scripts cannot read it, other sites do not send it."""
    answered.set_cookie(
        name,
        value,
        max_age=LONGEST_DAYS * 86400,
        path=(request.script_root or "") + "/",
        secure=is_secure(),
        httponly=True,
        samesite="Lax",
    )


def clear_cookie(answered: Response, name: str) -> None:
    answered.delete_cookie(
        name, path=(request.script_root or "") + "/", secure=is_secure(), httponly=True, samesite="Lax"
    )


def _check_token(header: str) -> None:
    kind, _, value = header.partition(" ")
    if kind.lower() == "bearer" and door().tokens.check(value.strip()) is not None:
        return
    wait = door().token_throttle.take()
    if wait is not None:
        raise too_many(wait)
    refused = NotAllowed("Authorization", kind[:20], "Bearer and a valid token", "Make one: controlpilot token.", 401)
    refused.http_headers = {"WWW-Authenticate": 'Bearer realm="LoRA Pilot"'}
    raise refused


def too_many(wait: int) -> NotAllowed:
    refused = NotAllowed("login", "too many wrong attempts", f"one in {wait} s", f"Wait {wait} s and try again.", 429)
    refused.http_headers = {"Retry-After": str(wait)}
    return refused


def _not_logged_in() -> Response:
    error = PilotError("login", "nobody is logged in", "a session or a token", "Log in, or send Authorization: Bearer.")
    login = url_for("auth.login")
    if request.method in ("GET", "HEAD") and wants_page():
        asked = request.full_path.rstrip("?") if request.query_string else request.path
        here = "" if asked == "/" else f"?next={quote(own_path(quote(asked, safe='/?=&%')), safe='/')}"
        return make_response(redirect(login + here, 303))
    headers = {"WWW-Authenticate": 'Bearer realm="LoRA Pilot"'}
    if request.headers.get("HX-Request"):
        headers["HX-Redirect"] = login
    return answer(error, 401, headers)


def _unknown_host() -> Response:
    if request.method in ("GET", "HEAD") and wants_page():
        return make_response(redirect(url_for("auth.login"), 303))
    given = request.host[:200]
    remedy = "Log in once with the password at this address; the panel remembers it."
    return answer(PilotError("Host", given, "an address this panel knows", remedy), 400)


def _headers(answered: Response) -> Response:
    for name, value in HEADERS.items():
        answered.headers.setdefault(name, value)
    if request.endpoint == "static":
        answered.headers["Cache-Control"] = "no-cache"  # asked for again each time, and answered with 304
    else:
        answered.headers.setdefault("Cache-Control", "no-store")
    return answered
