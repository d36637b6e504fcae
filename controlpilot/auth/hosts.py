"""The host names this panel answers to. One that is not known sees the login page and nothing else, so that a foreign
page cannot reach the panel by a name of its own (DNS rebinding); a login with the password teaches it.
"""

from __future__ import annotations

import ipaddress
import logging

from controlpilot.auth import secret_files
from controlpilot.settings import Settings, host_name

log = logging.getLogger(__name__)
FILE = "hosts.json"
MOST = 50


class Hosts:
    def __init__(self, settings: Settings) -> None:
        self._path = settings.secrets / FILE
        self._fixed = settings.known_hosts()
        self._learned: tuple[float, frozenset[str]] = (-1.0, frozenset())

    def known(self, netloc: str) -> bool:
        """Whether the Host header names this panel: loopback, configured or learned."""
        name = host_name(netloc)
        return bool(name) and (name in self._fixed or _loopback(name) or name in self._read())

    def learn(self, netloc: str) -> None:
        """A person proved with the password that this is how they reach the panel."""
        name = host_name(netloc)
        if name and not self.known(netloc):
            names = [*sorted(self._read()), name][-MOST:]
            try:
                secret_files.write_json(self._path, {"schema": 1, "hosts": names})
            except OSError as error:
                if error.errno not in secret_files.NO_ROOM:
                    raise
                log.warning("%s: %s; the host %s is known until the panel restarts", self._path, error.strerror, name)
                self._fixed |= {name}

    def _read(self) -> frozenset[str]:
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            return frozenset()
        if self._learned[0] != stamp:
            found = (secret_files.read_json(self._path) or {}).get("hosts", [])
            self._learned = (stamp, frozenset(str(name) for name in found))
        return self._learned[1]


def _loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
