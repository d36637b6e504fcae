"""Notifications: where to send them (Apprise URLs, which hold passwords and are never shown again) and the sending.

The URLs lie 0600 in the secrets folder. Used by views/settings.py and by controlpilot/outbox.py, which sends what
controlpilot/watch.py found worth telling.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from controlpilot.auth import secret_files
from controlpilot.views.refusals import NotFound
from trainpilot.errors import PilotError

if TYPE_CHECKING:
    from apprise import NotifyBase

FILE = "notifications.json"
MOST = 20
LONGEST = 2000  # characters of a URL


class NotSent(PilotError):
    """The service behind a URL did not take the message."""

    http_status = 409


@dataclass(frozen=True)
class Channel:
    """One place that is told. kind: the URL's scheme, such as ntfys or mailto; name: given by the person."""

    id: str
    name: str
    kind: str


class Notices:
    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def all(self) -> list[Channel]:
        """Every channel, without its URL."""
        return [Channel(one["id"], one["name"], one["url"].partition("://")[0]) for one in self._kept()]

    def add(self, name: str, url: str) -> Channel:
        """Keep a URL. PilotError where Apprise does not know its kind; the message does not repeat it."""
        name, url = name.strip(), url.strip()
        if not name or len(name) > 60 or not name.isprintable():
            raise PilotError("name", name[:80], "1 to 60 printable characters", "Name who or what is told.")
        if not 0 < len(url) <= LONGEST or _sender(url) is None:
            remedy = "See the list of Apprise: a kind, ://, and what that service needs."
            raise PilotError("address", "something that Apprise does not know", "for example ntfys://TOPIC", remedy)
        kept = self._kept()
        if len(kept) >= MOST:
            raise PilotError("notifications", len(kept), f"at most {MOST}", "Remove one first.")
        made = {"id": secrets.token_hex(4), "name": name, "url": url}
        self._write([*kept, made])
        return Channel(made["id"], name, url.partition("://")[0])

    def remove(self, ident: str) -> None:
        """Forget a channel. Raises NotFound."""
        self._one(ident)
        self._write([one for one in self._kept() if one["id"] != ident])

    def test(self, ident: str) -> None:
        """Send a message to one channel now. Raises NotFound, NotSent."""
        if not self.send(ident, "LoRA Pilot", "This is a test: notifications of this panel arrive here."):
            name = self._one(ident)["name"]
            remedy = "Check the address and the network; remove it and add it again."
            raise NotSent(f"notification {name}", "not delivered", "a message that is accepted", remedy)

    def send(self, ident: str, title: str, text: str) -> bool:
        """Send to one channel: whether it was taken. Raises NotFound for a channel that is gone."""
        return _send(self._one(ident)["url"], title, text)

    def _one(self, ident: str) -> dict[str, str]:
        for one in self._kept():
            if one["id"] == ident:
                return one
        raise NotFound("notification", ident[:100], "the id of one that exists", "See the Settings page.")

    def _kept(self) -> list[dict[str, str]]:
        found = (secret_files.read_json(self._path) or {}).get("channels", [])
        return [one for one in found if isinstance(one, dict) and {"id", "name", "url"} <= set(one)]

    def _write(self, channels: list[dict[str, str]]) -> None:
        secret_files.write_json(self._path, {"schema": 1, "channels": channels})


def _sender(url: str) -> NotifyBase | None:
    import apprise  # a quarter of a second that the panel's start does not have

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs addresses with what is secret in them
    found: NotifyBase | None = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    return found


def _send(url: str, title: str, text: str) -> bool:
    import apprise

    sender = _sender(url)
    if sender is None:
        return False
    teller = apprise.Apprise()
    teller.add(sender)
    return bool(teller.notify(body=text, title=title))
