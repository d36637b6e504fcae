"""`create_app(settings)`: the only wiring. Finds the pages and the API by scanning their folders.

A module of pages/ or api/ has `blueprint`; a page that is a tab also has `NAV`. Used by `controlpilot serve`, the
tests and `controlpilot openapi`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from flask import Flask, redirect, request, url_for
from werkzeug.wrappers import Response

from controlpilot import api, pages, problems, words
from controlpilot.auth import guard
from controlpilot.auth import views as auth_views
from controlpilot.auth.proxies import Proxies
from controlpilot.desk import Desk
from controlpilot.nav import Nav, Tab
from controlpilot.settings import Settings

API = "/api/v1"
BODY_LIMIT = 64 * 2**20  # bytes of one request; uploads come in smaller parts


def create_app(settings: Settings, desk: Desk | None = None) -> Flask:
    """The panel of a workspace. Makes nothing on disk and starts no thread; `controlpilot serve` does.

    desk: one of the caller's own, with other clocks.
    """
    app = Flask("controlpilot")
    app.config.update(MAX_CONTENT_LENGTH=BODY_LIMIT, MAX_FORM_PARTS=2000)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.jinja_env.filters.update(words.FILTERS)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.extensions["pilot"] = desk or Desk(settings)
    app.wsgi_app = Proxies(app.wsgi_app, settings)  # type: ignore[method-assign, assignment]
    problems.register(app)
    guard.register(app)
    app.register_blueprint(auth_views.blueprint)

    app.add_url_rule("/healthz", "healthz", _healthz)
    for module in _modules(api):
        app.register_blueprint(module.blueprint, url_prefix=API)
    tabs: list[tuple[Nav, str]] = []
    for module in _modules(pages):
        app.register_blueprint(module.blueprint)
        if hasattr(module, "NAV"):
            tabs.append((module.NAV, module.blueprint.name))
    tabs.sort(key=lambda tab: tab[0].order)
    _context(app, tabs)
    if tabs and not any(rule.rule == "/" for rule in app.url_map.iter_rules()):
        first = f"{tabs[0][1]}.{tabs[0][0].view}"
        app.add_url_rule("/", "start", lambda: redirect(url_for(first)))
    return app


def _modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _context(app: Flask, tabs: list[tuple[Nav, str]]) -> None:
    def shown() -> dict[str, Any]:
        here = request.blueprint
        if guard.who() is None:
            return {"tabs": [], "leave_url": None}
        return {
            "leave_url": url_for("auth.leave"),
            "tabs": [
                Tab(nav.title, nav.icon, url_for(f"{name}.{nav.view}"), name == here) for nav, name in tabs
            ]
        }  # fmt: skip

    app.context_processor(shown)


@guard.public(guard.ANYWHERE)  # a provider's probe asks by an address
def _healthz() -> Response:
    return Response("ok\n", mimetype="text/plain")
