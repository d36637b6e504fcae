"""A program's way into a served panel, for tests that speak HTTP themselves."""

from __future__ import annotations

from typing import Any

import requests


def session_of(live_panel: Any) -> requests.Session:
    """A session that may change things, as the panel's own pages may."""
    session = requests.Session()
    session.headers["Origin"] = live_panel.url
    if live_panel.password:
        answer = session.post(f"{live_panel.url}/login", data={"password": live_panel.password})
        assert answer.ok, answer.text[:300]
    return session


def headers_at(session: requests.Session, port: int) -> dict[str, str]:
    """The session's headers for another port of this machine, where a proxy listens."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies)
    return {"Origin": f"http://127.0.0.1:{port}"} | ({"Cookie": cookies} if cookies else {})
