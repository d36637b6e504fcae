"""Tells somebody that a run ended: one small POST to the URL that an environment variable holds.

Used where a run's end is recorded. The URL is a secret (whoever knows it may post): it is never written anywhere, and
what is said about a failure does not contain it.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 5.0  # seconds


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to another scheme or host than the one that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def tell(
    variable: str,
    message: Mapping[str, object],
    *,
    timeout: float = TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """POST `message` as JSON to the URL in the environment variable named `variable`; "" tells nobody.

    Returns None where it was taken (a status of 200 to 299), else one sentence on what failed, without the URL. Never
    raises for what the other side or the URL does: a finished run stays finished.
    """
    if not variable:
        return None
    url = (os.environ if environment is None else environment).get(variable, "").strip()
    if not url:
        return _failed(variable, "the variable is not set")
    try:
        scheme = urlsplit(url).scheme.lower()
        if scheme not in ("http", "https"):
            return _failed(variable, "its URL begins with neither https:// nor http://")
        body = json.dumps(dict(message)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "trainpilot"}
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return _failed(variable, f"the other side answered {error.code}")
    except urllib.error.URLError as error:
        # The reason is an OSError's own text or a library's; only the type is certain not to quote the URL.
        return _failed(variable, f"it could not be reached ({type(error.reason).__name__})")
    except Exception as error:  # noqa: BLE001 - http.client raises many kinds, some of which quote the URL
        return _failed(variable, f"it could not be told ({type(error).__name__})")


def _failed(variable: str, why: str) -> str:
    return f"notifications.webhook_env {variable}: nobody was told of the end, because {why}"
