"""Tickets that carry a login from the panel's origin to a service's: good once, for half a minute, for one service.

In memory: a ticket that a restart of the panel loses is asked for again by one click.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable

SECONDS = 30
MOST = 200  # waiting at once; the oldest go first


class Tickets:
    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._waiting: dict[str, tuple[str, str, float]] = {}
        self._lock = threading.Lock()

    def issue(self, session: str, service: str) -> str:
        """A ticket for a service, for the session of that digest."""
        ticket = secrets.token_urlsafe(32)
        now = self._steady()
        with self._lock:
            live = {name: one for name, one in self._waiting.items() if one[2] > now}
            while len(live) >= MOST:
                live.pop(next(iter(live)))
            live[_digest(ticket)] = (session, service, now + SECONDS)
            self._waiting = live
        return ticket

    def take(self, ticket: str, service: str) -> str | None:
        """The session's digest, once; a ticket that is tried at the wrong service is spent too."""
        with self._lock:
            found = self._waiting.pop(_digest(ticket), None)
        if found is None or found[1] != service or found[2] <= self._steady():
            return None
        return found[0]


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).hexdigest()
