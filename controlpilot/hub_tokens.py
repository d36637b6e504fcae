"""The access tokens of model hosts: saved 0600 in the secrets folder, or from the environment; never shown again.

The Models page saves and removes; the courier reads. The page is told where a token comes from, never the token.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from trainpilot.errors import PilotError
from trainpilot.runs.atomic import sync_folder
from trainpilot.runs.secrets import TOKENS

FILE = "hub_tokens.json"
Source = Literal["saved", "environment"]
_LOOKS_RIGHT = re.compile(r"[\x21-\x7e]{8,500}")


class HubTokens:
    """Tokens by the names of `runs.secrets.TOKENS`. A saved one wins over the environment's."""

    def __init__(self, secrets: Path, environment: Mapping[str, str] | None = None) -> None:
        self.path = secrets / FILE
        self._environment = os.environ if environment is None else environment

    def sources(self) -> dict[str, Source | None]:
        """Where each token comes from; None where there is none."""
        saved = self._saved()
        return {n: "saved" if n in saved else "environment" if self._environment.get(n) else None for n in TOKENS}

    def values(self) -> dict[str, str]:
        """The tokens themselves, for the courier alone."""
        given = {name: self._environment[name] for name in TOKENS if self._environment.get(name)}
        return given | self._saved()

    def save(self, name: str, value: str) -> None:
        """Keep a token. PilotError where it cannot be one; the message does not repeat it."""
        value = value.strip()
        self._check(name)
        if not _LOOKS_RIGHT.fullmatch(value):
            raise PilotError(
                name, "something that is no token", "8 to 500 characters without spaces", "Paste it again."
            )
        self._write(self._saved() | {name: value})

    def remove(self, name: str) -> None:
        """Forget a saved token; one of the environment stays in effect."""
        self._check(name)
        self._write({key: value for key, value in self._saved().items() if key != name})

    def _check(self, name: str) -> None:
        if name not in TOKENS:
            raise PilotError("token", name, ", ".join(TOKENS), "Choose one of these.")

    def _saved(self) -> dict[str, str]:
        try:
            given = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            remedy = "Save the tokens again on the Models page."
            raise PilotError(self.path.name, f"cannot be read: {error}", "the file that was saved", remedy) from error
        return {name: str(value) for name, value in given.items() if name in TOKENS and value}

    def _write(self, values: dict[str, str]) -> None:
        """Private from its first byte: made with its mode, beside, synced, renamed."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = self.path.with_name(f".{FILE}.{os.getpid()}")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        sync_folder(self.path.parent)
