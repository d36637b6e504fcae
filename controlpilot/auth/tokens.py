"""Tokens for programs: `Authorization: Bearer pilot_<id>_<secret>`. Named, hashed, revocable, shown once.

One file each, so that the shell and the panel can both make and revoke them. Used by the guard, the Settings page and
`controlpilot token`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controlpilot.auth import secret_files
from controlpilot.views.refusals import NotFound
from trainpilot.errors import PilotError

IDENT = re.compile(r"[0-9a-f]{12}")
MOST = 100
SEEN_EVERY = 600


@dataclass(frozen=True)
class Token:
    """id: public; created, used: unix seconds, used None where it never was."""

    id: str
    name: str
    created: float
    used: float | None


class Tokens:
    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder / "tokens"
        self._clock = clock

    def create(self, name: str) -> tuple[Token, str]:
        """A token and its value, which nobody can be shown again. Raises PilotError for an unusable name."""
        name = name.strip()
        if not name or len(name) > 60 or not name.isprintable():
            raise PilotError("name of the token", name[:80], "1 to 60 printable characters", "Name what it is for.")
        if len(self.all()) >= MOST:
            raise PilotError("tokens", MOST, f"at most {MOST}", "Revoke one that is not needed any more.")
        ident, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        now = self._clock()
        kept = {"schema": 1, "name": name, "created": now, "hash": _hash(secret)}
        secret_files.write_json(self._path(ident), kept)
        os.utime(self._path(ident), (0, 0))  # the file's time is when the token was last used
        return Token(ident, name, now, None), f"pilot_{ident}_{secret}"

    def check(self, value: str) -> Token | None:
        """The token of this value, None where there is none."""
        ident, _, secret = value.removeprefix("pilot_").partition("_")
        if not value.startswith("pilot_") or not IDENT.fullmatch(ident):
            return None
        kept = secret_files.read_json(self._path(ident)) or {}
        if not hmac.compare_digest(str(kept.get("hash", "")), _hash(secret)):
            return None
        now = self._clock()
        token = self._read(ident)
        if token is not None and now - (token.used or 0) > SEEN_EVERY:
            os.utime(self._path(ident), (now, now))
        return token

    def all(self) -> list[Token]:
        """Every token, the newest first."""
        found = [self._read(path.stem) for path in self._folder.glob("*.json")]
        return sorted((one for one in found if one), key=lambda one: -one.created)

    def revoke(self, ident: str) -> None:
        """Raises NotFound where there is no such token."""
        if not IDENT.fullmatch(ident) or not self._path(ident).is_file():
            raise NotFound("token", ident, ", ".join(one.id for one in self.all()) or "none exist", "List them first.")
        self._path(ident).unlink(missing_ok=True)  # a hash without its token is of no use to anybody

    def _read(self, ident: str) -> Token | None:
        path = self._path(ident)
        kept = secret_files.read_json(path)
        if kept is None:
            return None
        try:
            used = path.stat().st_mtime
        except FileNotFoundError:
            return None
        return Token(ident, str(kept.get("name", "")), float(kept.get("created", 0)), used or None)

    def _path(self, ident: str) -> Path:
        return self._folder / f"{ident}.json"


def _hash(secret: str) -> str:
    """Plain SHA-256 is enough: the secret is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
