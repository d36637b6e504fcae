"""Notifications on their way: one file each until every channel has taken it, so that neither a restart nor an hour
without network loses one.

They lie in the secrets folder, where only the panel's user can put words into the mouth of the pod. Filled by
controlpilot/watch.py and controlpilot/idle.py; emptied by the courier's lookout.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlpilot.auth import secret_files
from controlpilot.notices import Notices
from controlpilot.views.refusals import NotFound

FOLDER = "outbox"
AGAIN = (15.0, 60.0, 300.0, 900.0)  # seconds before each further try; the last one is repeated
KEPT = 86400.0  # seconds after which a notice is old news


class Outbox:
    """put() from any thread; send_due() from one. tell: one line for the log; clock: unix seconds; steady: seconds that
    never jump."""

    def __init__(
        self,
        secrets: Path,
        tell: Callable[[str], None],
        *,
        again: tuple[float, ...] = AGAIN,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = secrets / FOLDER
        self.notices = Notices(secrets)
        self._tell, self._again, self._clock, self._steady = tell, again, clock, steady
        self._not_before: dict[tuple[str, str], float] = {}  # (notice, channel); a new process tries at once
        self._tries: dict[tuple[str, str], int] = {}
        self.filled = threading.Event()

    def put(self, key: str, title: str, text: str) -> None:
        """Send this to everybody who is told. The same key while it is still on its way is the same notice."""
        to = [channel.id for channel in self.notices.all()]
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        path = self.folder / f"{name}.json"
        if not to or path.exists():
            return
        notice = {"schema": 1, "key": key, "title": title, "text": text, "made": self._clock(), "to": to}
        secret_files.write_json(path, notice)
        self.filled.set()

    def waiting(self) -> list[dict[str, Any]]:
        """What has not reached everybody, the oldest first."""
        found = [(path, secret_files.read_json(path)) for path in self.folder.glob("*.json")]
        known = [one | {"path": path} for path, one in found if one and {"made", "to", "title", "text"} <= set(one)]
        return sorted(known, key=lambda one: float(one["made"]))

    def send_due(self) -> None:
        """Try what is due, once. Raises OSError where the folder cannot be written."""
        self.filled.clear()
        for notice in self.waiting():
            path: Path = notice.pop("path")
            left = [channel for channel in notice["to"] if not self._try(path.stem, channel, notice)]
            if left and self._clock() - notice["made"] > KEPT:
                self._tell(f"the notification {notice['title']!r} did not arrive within a day and is given up")
                left = []
            if not left:
                path.unlink(missing_ok=True)
                for at in [at for at in self._tries if at[0] == path.stem]:
                    del self._tries[at], self._not_before[at]
            elif left != notice["to"]:
                secret_files.write_json(path, notice | {"to": left})

    def flush(self, seconds: float) -> bool:
        """Wait until everything was sent or failed once, `seconds` at most; for the moments before the pod stops."""
        end = self._steady() + seconds
        while self._steady() < end:
            if all((one["path"].stem, channel) in self._not_before for one in self.waiting() for channel in one["to"]):
                return not self.waiting()
            time.sleep(0.05)
        return False

    def work(self, stop: threading.Event) -> None:
        """Send until `stop`: at once what is new, again what failed."""
        while not stop.is_set():
            try:
                self.send_due()
            except OSError as error:
                self._tell(f"notifications wait: their folder cannot be read or written: {error}")
            self.filled.wait(1.0)

    def _try(self, name: str, channel: str, notice: dict[str, Any]) -> bool:
        """Whether a channel needs this no more: it was taken, or the channel is gone."""
        at = (name, channel)
        if self._not_before.get(at, 0.0) > self._steady():
            return False
        try:
            if self.notices.send(channel, notice["title"], notice["text"]):
                return True
        except NotFound:
            return True
        tries = self._tries[at] = self._tries.get(at, 0) + 1
        wait = self._again[min(tries, len(self._again)) - 1]
        self._not_before[at] = self._steady() + wait
        self._tell(
            f"the notification {notice['title']!r} was not taken by channel {channel}; another try in {wait:g} s"
        )
        return False
