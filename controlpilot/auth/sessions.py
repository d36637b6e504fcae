"""Logged-in browsers. One small file each, so that a log-out, here or from the shell, ends it everywhere at once.

The cookie is a random name with a signature; the file is named by the name's hash, so that reading the folder gives
nobody a session. A service's cookie is signed for that service and lives and dies with the session. Where the secrets
folder takes no more files (the volume is full, or became read-only), a new session lives in the run folder instead.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from controlpilot.auth import secret_files
from controlpilot.auth.passwords import Passwords

log = logging.getLogger(__name__)
KEY = "session.key"  # of the signatures
IDLE_DAYS = 14
LONGEST_DAYS = 60
DAY = 86400
SEEN_EVERY = 600  # seconds between two notes that a session is used
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Session:
    """digest: its public name; created, seen: unix seconds; agent, address: of the browser that logged in."""

    digest: str
    created: float
    seen: float
    agent: str
    address: str


class Sessions:
    """folder: of the secrets; run: of sockets, on the machine's own disk; clock: unix seconds."""

    def __init__(self, folder: Path, run: Path, clock: Callable[[], float]) -> None:
        self._secrets = folder
        self._folders = (folder / "sessions", run / "sessions")
        self._passwords = Passwords(folder)
        self._clock = clock
        self._key: bytes | None = None

    def begin(self, agent: str, address: str) -> tuple[Session, str]:
        """A new session and the value of its cookie."""
        name = secrets.token_urlsafe(32)
        now = self._clock()
        session = Session(_digest(name), now, now, agent[:200], address[:60])
        kept = {
            "schema": 1,
            "created": now,
            "agent": session.agent,
            "address": session.address,
            "generation": self._passwords.generation,
        }
        self._clear_old()
        path = self._write(session.digest, kept)
        os.utime(path, (now, now))
        return session, f"{name}.{self._sign('session', name)}"

    def _write(self, digest: str, kept: dict[str, object]) -> Path:
        lasting, passing = (folder / f"{digest}.json" for folder in self._folders)
        try:
            secret_files.write_json(lasting, kept)
        except OSError as error:
            if error.errno not in secret_files.NO_ROOM:
                raise
            log.warning("%s: %s; this log-in is kept in %s", lasting.parent, error.strerror, passing.parent)
            secret_files.write_json(passing, kept)
            return passing
        return lasting

    def of_cookie(self, value: str | None) -> Session | None:
        """The session of a panel cookie, None where there is none (any more)."""
        name, _, signature = (value or "").partition(".")
        if not name or not hmac.compare_digest(signature.encode(), self._sign("session", name).encode()):
            return None
        return self.find(_digest(name))

    def of_cookies(self, values: Iterable[str]) -> Session | None:
        """The session of the first good one of several cookies of the name: a script of a service, on this host's
        other port, can add one for a deeper path, which browsers send before ours."""
        return next(filter(None, map(self.of_cookie, values)), None)

    def service_cookie(self, session: Session, service: str) -> str:
        """The value of a cookie that opens one service."""
        return f"{session.digest}.{self._sign(f'service {service}', session.digest)}"

    def of_service_cookie(self, value: str | None, service: str) -> Session | None:
        digest, _, signature = (value or "").partition(".")
        expected = self._sign(f"service {service}", digest)
        if not digest or not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        return self.find(digest)

    def of_service_cookies(self, values: Iterable[str], service: str) -> Session | None:
        return next(filter(None, (self.of_service_cookie(value, service) for value in values)), None)

    def find(self, digest: str) -> Session | None:
        """A live session; looking at it counts as using it."""
        if not DIGEST.fullmatch(digest):
            return None
        path = self._path(digest)
        session = self._read(path)
        if session is not None and self._clock() - session.seen > SEEN_EVERY:
            try:
                os.utime(path, (self._clock(), self._clock()))
            except FileNotFoundError:
                return None  # logged out meanwhile
            except OSError as error:
                log.warning("%s: %s; its use is not noted", path, error.strerror)
        return session

    def all(self) -> list[Session]:
        """Every live session, the last used first."""
        found = [self._read(path) for path in self._files()]
        return sorted((one for one in found if one), key=lambda one: -one.seen)

    def end(self, digest: str) -> None:
        """Log one out, with every service it has open."""
        if DIGEST.fullmatch(digest):
            for folder in self._folders:
                (folder / f"{digest}.json").unlink(missing_ok=True)

    def end_all(self, except_digest: str = "") -> None:
        for session in self.all():
            if session.digest != except_digest:
                self.end(session.digest)

    def _read(self, path: Path) -> Session | None:
        kept = secret_files.read_json(path)
        if kept is None or kept.get("generation") != self._passwords.generation:
            return None
        try:
            seen = path.stat().st_mtime
        except FileNotFoundError:
            return None
        now = self._clock()
        if now - seen > IDLE_DAYS * DAY or now - kept["created"] > LONGEST_DAYS * DAY:
            return None
        return Session(path.stem, kept["created"], seen, kept["agent"], kept["address"])

    def _clear_old(self) -> None:
        """Sessions are no data of a person's: what has ended is removed for good."""
        for path in self._files():
            if self._read(path) is None:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        return (path for folder in self._folders for path in folder.glob("*.json"))

    def _path(self, digest: str) -> Path:
        """Where the session is kept; the lasting place where it is kept nowhere."""
        lasting, passing = (folder / f"{digest}.json" for folder in self._folders)
        return passing if passing.exists() else lasting

    def _sign(self, purpose: str, text: str) -> str:
        if self._key is None:
            self._key = secret_files.key(self._secrets / KEY)
        return hmac.new(self._key, f"{purpose}\n{text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
