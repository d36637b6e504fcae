"""Whether a service answers: its health path, asked over loopback or its unix socket. Used by the Services page and by
the page that waits until a service can be opened."""

from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from controlpilot.services import Service


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def healthy(service: Service, timeout: float = 2.0) -> tuple[bool, str]:
    """(whether it answers, in words). timeout: seconds. A service without a health path counts as answering."""
    if not service.health or not service.upstream:
        return True, "nothing to ask"
    link: http.client.HTTPConnection
    if service.upstream.startswith("unix:"):
        link = _OverSocket(service.upstream.removeprefix("unix:"), timeout)
    else:
        where = urlsplit(service.upstream)
        link = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=timeout)
    try:
        link.request("GET", service.health)
        status = link.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer yet ({type(error).__name__})"
    finally:
        link.close()
    return status < 400, f"answers {status}"
