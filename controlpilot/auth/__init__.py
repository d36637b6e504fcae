"""Who may do what: passwords, sessions, tickets, tokens, the throttle, and the guard that asks them on every request.

`Doorkeeper` holds them together for one panel; `desk().door`. The same sessions open the gateway's services.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from controlpilot.auth.hosts import Hosts
from controlpilot.auth.passwords import Passwords
from controlpilot.auth.sessions import Sessions
from controlpilot.auth.throttle import Throttle
from controlpilot.auth.tickets import Tickets
from controlpilot.auth.tokens import Tokens
from controlpilot.settings import Settings


class Doorkeeper:
    """All that decides about access. clock: unix seconds; steady: seconds that never jump."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.passwords = Passwords(settings.secrets)
        self.sessions = Sessions(settings.secrets, settings.run, clock)
        self.tickets = Tickets(steady)
        self.tokens = Tokens(settings.secrets, clock)
        self.hosts = Hosts(settings)
        self.password_throttle = Throttle(steady)
        self.token_throttle = Throttle(steady, burst=20, per_hour=120)
