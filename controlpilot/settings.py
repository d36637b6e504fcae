"""What the panel is told from outside: folders, where to listen, how it is reached. Read once, from the environment.

The only module that reads `PILOT_*` variables for the panel; everything else takes a `Settings`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

PORT = 7878
HOST = "127.0.0.1"
LOOPBACK = ("localhost",)


@dataclass(frozen=True)
class Settings:
    """Folders, addresses and who is trusted. Frozen: what a person changes in the panel lives in files instead.

    secrets: 0700 folder of hashes, keys and tokens. run: sockets and process ids. supervisor: supervisord's socket,
    None where there is none. socket: the unix socket to serve on instead of host and port; only the gateway can open
    it, so what comes through it is believed. prefix: the path the panel is published under, without a final slash.
    """

    workspace: Workspace
    secrets: Path
    run: Path
    supervisor: Path | None = None
    host: str = HOST
    port: int = PORT
    socket: Path | None = None
    url_template: str | None = None  # with {port}, {service}: the public address of a service
    ports: Mapping[int, int] = field(default_factory=dict)  # our port -> the port it is published under
    public_host: str | None = None  # the host name those ports are published under
    prefix: str = ""
    trusted_proxies: tuple[str, ...] = ()  # addresses or networks whose X-Forwarded-* are believed
    debug: bool = False  # shows /design

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """The settings of this machine. Raises PilotError for a value that cannot be."""
        given = environ.get("PILOT_WORKSPACE")
        workspace = Workspace(Path(given).expanduser().resolve()) if given else Workspace.find()
        secrets = environ.get("PILOT_SECRETS")
        run = _run_folder(environ)
        supervisor = Path(environ.get("PILOT_SUPERVISOR") or run / "supervisor.sock")
        ports = {
            int(found[1]): _port(f"VAST_TCP_PORT_{found[1]}", value)
            for name, value in environ.items()
            if (found := re.fullmatch(r"VAST_TCP_PORT_(\d{1,5})", name))
        }
        template = environ.get("PILOT_URL_TEMPLATE") or None
        if template is None and (pod := environ.get("RUNPOD_POD_ID")):
            template = f"https://{pod}-{{port}}.proxy.runpod.net"
        if template is not None:
            _check_template(template)
        return cls(
            workspace=workspace,
            secrets=Path(secrets).expanduser().resolve() if secrets else workspace.root / "config" / "panel",
            run=run,
            supervisor=supervisor if supervisor.exists() else None,
            host=environ.get("PILOT_HOST") or HOST,
            port=_port("PILOT_PORT", environ.get("PILOT_PORT") or str(PORT)),
            url_template=template,
            ports=ports,
            public_host=environ.get("PUBLIC_IPADDR") or None,
            prefix=clean_prefix(environ.get("PILOT_PREFIX", "")),
            trusted_proxies=_networks(environ.get("PILOT_TRUSTED_PROXIES", "")),
            debug=environ.get("PILOT_DEBUG") == "1",
        )

    def origin_of(self, service: str, port: int, host: str, secure: bool) -> str:
        """The public origin of a service: from the template, from the mapped ports, else the host name of the request
        with the contract's port. host: of the request, as its Host header says; secure: whether it came over TLS."""
        if self.url_template:
            return self.url_template.format(port=port, service=service).rstrip("/")
        scheme = "https" if secure else "http"
        if self.ports.get(port):
            name = self.public_host or host_name(host)
            return f"{scheme}://{bracketed(name)}:{self.ports[port]}"
        return f"{scheme}://{bracketed(host_name(host))}:{port}"

    def known_hosts(self) -> frozenset[str]:
        """Host names that need not be learned: loopback, and what the settings themselves name."""
        known = set(LOOPBACK)
        if self.url_template:
            known |= {urlsplit(self.url_template.format(port=PORT, service="panel")).hostname or ""}
        if self.public_host:
            known.add(self.public_host.lower())
        return frozenset(known - {""})

    def trusts(self, address: str | None) -> bool:
        """Whether what a proxy at this address says about the request is believed."""
        # Only the gateway can open the socket.
        return self.socket is not None or self.names_proxy(address)

    def names_proxy(self, address: str | None) -> bool:
        """Whether the address is one of the trusted proxies'."""
        try:
            asked = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(asked in ipaddress.ip_network(network) for network in self.trusted_proxies)


def host_name(netloc: str) -> str:
    """The name in a Host header, lower case and without port or brackets; "" where it is malformed."""
    if re.search(r"[^A-Za-z0-9.\-_:\[\]]", netloc):
        return ""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def clean_prefix(given: str) -> str:
    """A path such as /pilot; "" for none. Raises PilotError where it could not be the start of our URLs."""
    prefix = given.strip().rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise PilotError("PILOT_PREFIX", given, "a path such as /pilot", "Correct the prefix or leave it out.")
    return prefix


def _run_folder(environ: Mapping[str, str]) -> Path:
    if given := environ.get("PILOT_RUN"):
        return Path(given).expanduser().resolve()
    pod = Path("/run/pilot")
    return pod if pod.is_dir() else Path(tempfile.gettempdir()) / f"lora-pilot-{os.getuid()}"


def _port(name: str, given: str) -> int:
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise PilotError(name, given, "a port from 1 to 65535", "Correct the variable.")
    return int(given)


def _check_template(template: str) -> None:
    remedy = "Correct PILOT_URL_TEMPLATE, for example https://POD-{port}.proxy.example"
    try:
        parts = urlsplit(template.format(port=PORT, service="panel"))
    except (KeyError, IndexError, ValueError) as error:
        raise PilotError("PILOT_URL_TEMPLATE", template, "only {port} and {service} in braces", remedy) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PilotError("PILOT_URL_TEMPLATE", template, "an http or https address", remedy)


def _networks(given: str) -> tuple[str, ...]:
    found = tuple(filter(None, re.split(r"[,\s]+", given)))
    for one in found:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            remedy = "Correct PILOT_TRUSTED_PROXIES, for example 10.0.0.0/8"
            raise PilotError("PILOT_TRUSTED_PROXIES", one, "addresses or networks", remedy) from error
    return found
