"""What a proxy in front says about a request, believed only from the gateway's socket or a trusted address.

WSGI middleware around the application: afterwards REMOTE_ADDR, scheme, Host and SCRIPT_NAME are the browser's, and no
X-Forwarded header is left that somebody could read by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from controlpilot.settings import Settings, clean_prefix
from trainpilot.errors import PilotError

FORWARDED = ("FOR", "PROTO", "HOST", "PREFIX", "PORT", "SERVER", "SCHEME", "SSL")
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Proxies:
    def __init__(self, app: Application, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        told = {name: str(environ.pop(f"HTTP_X_FORWARDED_{name}", "")).strip() for name in FORWARDED}
        environ.pop("HTTP_FORWARDED", None)
        prefix = self._settings.prefix
        if self._settings.trusts(environ.get("REMOTE_ADDR")):
            if told["FOR"]:
                environ["REMOTE_ADDR"] = self._client(told["FOR"])
            if told["PROTO"] in ("http", "https"):
                environ["wsgi.url_scheme"] = told["PROTO"]
            if told["HOST"]:
                environ["HTTP_HOST"] = told["HOST"].split(",")[0].strip()
            if told["PREFIX"] and not prefix:
                try:
                    prefix = clean_prefix(told["PREFIX"])
                except PilotError:
                    prefix = ""  # not ours to repair; the addresses of the pages stay those of the root
        if prefix:
            environ["SCRIPT_NAME"] = prefix
            path = str(environ.get("PATH_INFO", ""))
            if path == prefix or path.startswith(prefix + "/"):
                environ["PATH_INFO"] = path[len(prefix) :]
        return self._app(environ, start)

    def _client(self, chain: str) -> str:
        """The last address that no trusted proxy has."""
        for address in reversed([one.strip() for one in chain.split(",")]):
            if not self._settings.names_proxy(address):
                return address[:60]
        return chain.split(",")[0].strip()[:60]
