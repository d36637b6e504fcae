"""How often one may be wrong: for all addresses together, because an attacker has many. Used by the guard.

Only attempts that fail count, and only attempts are refused: who is logged in never meets it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable


class Throttle:
    """A bucket of attempts: `burst` at once, then `per_hour` of them, one by one."""

    def __init__(self, steady: Callable[[], float], burst: int = 6, per_hour: int = 60) -> None:
        self._steady = steady
        self._burst = float(burst)
        self._rate = per_hour / 3600
        self._left = self._burst
        self._at = steady()
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Take one attempt: None, or the seconds to wait where none is left. Taken before it is tried, so that many at
        the same time are not more."""
        with self._lock:
            now = self._steady()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return math.ceil((1 - self._left) / self._rate)
            self._left -= 1
            return None

    def give_back(self) -> None:
        """The attempt was right."""
        with self._lock:
            self._left = min(self._burst, self._left + 1)
