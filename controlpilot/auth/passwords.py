"""The one password of the panel: its scrypt hash in the secrets folder. Set by boot, by `controlpilot password` and on
the Settings page; asked by the login page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlpilot.auth import secret_files
from trainpilot.errors import PilotError

FILE = "password.json"
SHORTEST, LONGEST = 8, 1024  # characters
# 32 MiB and about a tenth of a second for one try.
COST: dict[str, int] = {"n": 2**15, "r": 8, "p": 1}
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


@dataclass(frozen=True)
class Prepared:
    """What the first start found. generated: a new password that must be shown once; source: where the password comes
    from: "environment", "saved" or "generated"."""

    generated: str | None
    source: str


class Passwords:
    """The stored hash of one secrets folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    @property
    def is_set(self) -> bool:
        return self._stored() is not None

    @property
    def source(self) -> str:
        """Who set it: "environment" comes back at the next start whatever is changed here."""
        return str((self._stored() or {}).get("source", ""))

    @property
    def generation(self) -> str:
        """Changes with every new password: sessions of an older one are void."""
        stored = self._stored() or {}
        return hashlib.sha256(str(stored.get("salt", "")).encode()).hexdigest()[:16]

    def verify(self, given: str) -> bool:
        """Whether it is the password; takes its tenth of a second also where none is set."""
        stored = self._stored() or {"salt": "", "hash": "", **COST}
        found = _hash(given, b64decode(stored["salt"]), {name: int(stored[name]) for name in COST})
        return hmac.compare_digest(found, b64decode(stored["hash"]))

    def set(self, new: str, source: str) -> None:
        """Keep the hash of a new password; all sessions end. Raises PilotError for one that is too short."""
        if not SHORTEST <= len(new) <= LONGEST:
            allowed = f"{SHORTEST} to {LONGEST} characters"
            raise PilotError(
                "password", f"{len(new)} characters", allowed, "Choose a longer one, a sentence for example."
            )
        salt = secrets.token_bytes(16)
        coded = {"salt": b64encode(salt).decode(), "hash": b64encode(_hash(new, salt, COST)).decode()}
        secret_files.write_json(self.path, {"schema": 1, "source": source, **COST, **coded})

    def _stored(self) -> dict[str, Any] | None:
        found = secret_files.read_json(self.path)
        return found if found and {"salt", "hash", *COST} <= set(found) else None


def prepare(folder: Path, environ: Mapping[str, str]) -> Prepared:
    """Make sure that there is a password, before the first request: PILOT_PASSWORD_FILE, then PILOT_PASSWORD, then the
    one that is set, else a new one, returned to be printed once. Raises PilotError for an unusable one."""
    passwords = Passwords(folder)
    if (given := _given(environ)) is not None:
        if not passwords.is_set or not passwords.verify(given) or passwords.source != "environment":
            passwords.set(given, "environment")
        return Prepared(None, "environment")
    if passwords.is_set:
        return Prepared(None, "saved")
    made = generate()
    passwords.set(made, "generated")
    return Prepared(made, "generated")


def forget_in(environ: MutableMapping[str, str]) -> None:
    """Take the password out of an environment that children would inherit."""
    environ.pop("PILOT_PASSWORD", None)


def generate() -> str:
    """A new password of 99 bits in five groups that can be typed."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(4)) for _ in range(5))


def _given(environ: Mapping[str, str]) -> str | None:
    if path := environ.get("PILOT_PASSWORD_FILE"):
        try:
            return Path(path).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "Mount the file, readable by the one who starts the panel."
            raise PilotError("PILOT_PASSWORD_FILE", f"{path}: {error}", "a text file", remedy) from error
    return environ.get("PILOT_PASSWORD") or None


def _hash(given: str, salt: bytes, cost: Mapping[str, int]) -> bytes:
    return hashlib.scrypt(given.encode("utf-8", "surrogatepass"), salt=salt, maxmem=2**27, dklen=32, **cost)
