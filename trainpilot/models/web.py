"""HTTP to the outside, for downloads: every address is looked at before it is used, tokens stay with their host.

A URL, and every redirect, is resolved once, each address it has must be a public one, and the connection goes to that
very address, so that a second answer of a name server changes nothing. urllib3, because it can connect to an address
while it checks the certificate of the name, and hands over bytes as they come; huggingface_hub's own downloader can do
neither, and cannot be stopped in between. Used by `fetch` and `hub`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import urllib3

from trainpilot import __version__
from trainpilot.errors import PilotError, RunFailed

# For tests alone: "127.0.0.1:1234,..." may be connected to, without TLS and with a token.
LOCAL_FOR_TESTS = "PILOT_TEST_LOCAL_DOWNLOADS"
HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
CIVITAI = "https://civitai.com"
MOST_REDIRECTS = 8
TIMEOUT = urllib3.Timeout(connect=15.0, read=30.0)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SECRET_QUERY = re.compile(r"token|key|secret|passw|signature|credential", re.IGNORECASE)


def hub() -> str:
    """The Hub's address: HF_ENDPOINT (a mirror, as huggingface_hub reads it), else huggingface.co."""
    return (os.environ.get(HUB_VARIABLE) or HUB).rstrip("/")


@dataclass
class Answer:
    """A response whose body has not been read. url: where it came from in the end; linked: headers of the redirects,
    in which the Hub tells size and hash of a file that another host delivers."""

    status: int
    headers: Mapping[str, str]
    url: str
    raw: urllib3.BaseHTTPResponse
    linked: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body; empty at its end. Raises urllib3's errors where it is cut."""
        return self.raw.read1(size, decode_content=True)

    def text(self, limit: int = 1 << 22) -> bytes:
        """The whole body of a small answer."""
        data = self.raw.read(limit + 1, decode_content=True)
        if len(data) > limit:
            raise RunFailed(shown(self.url), f"an answer of more than {limit:,} bytes", "a short one", "Try again.")
        return data

    def close(self) -> None:
        """Leave the connection; what was not read is not waited for."""
        self.raw.close()


def shown(url: str) -> str:
    """A URL for messages and logs: without what may be a signature or a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


class Web:
    """Requests with tokens: HF_TOKEN goes to the Hub's host, CIVITAI_TOKEN to civitai.com, and to no other."""

    def __init__(self, tokens: Mapping[str, str] | None = None) -> None:
        self._tokens = dict(tokens or {})
        self._local = {place.strip() for place in os.environ.get(LOCAL_FOR_TESTS, "").split(",") if place.strip()}

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Send GET and follow redirects. Raises PilotError for what is refused, RunFailed where nobody answers."""
        linked: dict[str, str] = {}
        for _ in range(MOST_REDIRECTS + 1):
            raw = self._send(url, dict(headers or {}))
            if raw.status not in (301, 302, 303, 307, 308) or "Location" not in raw.headers:
                return Answer(raw.status, raw.headers, url, raw, linked)
            linked |= {name: raw.headers[name] for name in raw.headers if name.lower().startswith("x-")}
            following = urljoin(url, raw.headers["Location"])
            raw.close()
            if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
                given = f"a redirect to {shown(following)}"
                raise PilotError(shown(url), given, "https", "The server would leave encryption; use another source.")
            url = following
        raise PilotError(shown(url), f"more than {MOST_REDIRECTS} redirects", "a file", "Use another address.")

    def token_for(self, url: str) -> str:
        """The name of the token that this URL's host gets, whether there is one or not; empty for every other host."""
        parts = urlsplit(url)
        for name, place in (("HF_TOKEN", hub()), ("CIVITAI_TOKEN", CIVITAI)):
            if (parts.scheme, parts.hostname, _port(parts)) == (urlsplit(place)[0], *_host_port(place)):
                return name
        return ""

    def _send(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(check_url(url))
        host, port = parts.hostname or "", _port(parts)
        local = f"{host}:{port}" in self._local
        if parts.scheme == "http" and self.token_for(url) in self._tokens and not local:
            raise PilotError(shown(url), "http, where a token is needed", "https", "Write https:// instead.")
        addresses = self._addresses(url, host, port, local)
        headers |= {"Host": parts.netloc.rpartition("@")[2], "User-Agent": f"lora-pilot/{__version__}"}
        headers.setdefault("Accept-Encoding", "identity")
        token = self._tokens.get(self.token_for(url))
        if token:
            headers["Authorization"] = f"Bearer {token}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        failure: Exception | None = None
        for address in addresses:
            try:
                return _pool(parts.scheme, address, port, host).request(
                    "GET", path, headers=headers, redirect=False, retries=False, preload_content=False, timeout=TIMEOUT
                )
            except urllib3.exceptions.HTTPError as error:
                failure = error
        raise RunFailed(
            shown(url), f"no connection: {failure}", "an answer", "Check the network; it is tried again."
        ) from failure

    def _addresses(self, url: str, host: str, port: int, local: bool) -> list[str]:
        """All addresses of a host. PilotError where one of them is not public, whatever its name says."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise RunFailed(
                shown(url), f"{host} cannot be found: {error}", "a host that exists", "Check the address."
            ) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not local and not public(address):
                raise PilotError(
                    shown(url),
                    f"{host} is {address}, inside this machine or its network",
                    "a public address",
                    "Downloads never reach inside; copy the file into models/ instead.",
                )
        return addresses


def check_url(url: str) -> str:
    """The URL where it is http or https and carries no secret; PilotError else."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or re.search(r"[\s\\]", url):
        raise PilotError("url", _scheme_only(url), "http:// or https:// and a host", "Paste the file's web address.")
    if parts.username or parts.password:
        raise PilotError("url", "a name or password in the address", "an address without", "Remove it.")
    return url


def carries_secret(url: str) -> str:
    """The name of a query parameter that looks like a secret, or nothing. For URLs that people give: they are kept."""
    return next((name for name, _ in parse_qsl(urlsplit(url).query) if _SECRET_QUERY.search(name)), "")


def public(address: str) -> bool:
    """Whether an address belongs to the internet at large: not loopback, link-local (metadata), private or mapped."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
    return bool(ip.is_global and not ip.is_multicast)


def _scheme_only(url: str) -> str:
    return f"{url.partition(':')[0][:20]}:..." if ":" in url else url[:40]


def _port(parts: Any) -> int:
    return int(parts.port or (443 if parts.scheme == "https" else 80))


def _host_port(place: str) -> tuple[str | None, int]:
    parts = urlsplit(place)
    return parts.hostname, _port(parts)


def _pool(scheme: str, address: str, port: int, host: str) -> urllib3.HTTPConnectionPool:
    """A connection to an address; the certificate must be the host's."""
    if scheme == "https":
        return urllib3.HTTPSConnectionPool(address, port, server_hostname=host, assert_hostname=host)
    return urllib3.HTTPConnectionPool(address, port)
