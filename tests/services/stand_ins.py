"""What stands behind and beside the gateway in its tests: a service that answers what it was asked, and the two
questions that a panel answers, each a real server of its own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def answer(self, status: int, body: bytes = b"", headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for name, value in headers or []:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)


class ServiceHandler(_Quiet):
    """Echoes the request as JSON; /cookies, /header, /stream, /slow and WebSockets besides."""

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        query = parse_qs(asked.query)
        if "websocket" in self.headers.get("Upgrade", "").lower():
            self.talk()
        elif asked.path == "/cookies":
            self.answer(200, b"set", [("Set-Cookie", line) for line in query["set"]])
        elif asked.path == "/header":
            self.answer(200, b"from the service", [(query["name"][0], query["value"][0])])
        elif asked.path == "/page":
            self.answer(200, b"<!doctype html><title>hostile</title><p>secret text", [("Content-Type", "text/html")])
        elif asked.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"first", b"second"):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
                time.sleep(1.0)
            self.wfile.write(b"0\r\n\r\n")
        else:
            length = int(self.headers.get("Content-Length") or 0)
            received = 0
            while received < length:
                received += len(self.rfile.read(min(1 << 20, length - received)))
            said = {
                "method": self.command,
                "path": self.path,
                "headers": dict(self.headers.items()),
                "received": received,
            }
            self.answer(200, json.dumps(said).encode(), [("Content-Type", "application/json")])

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_HEAD = do_GET

    def talk(self) -> None:
        key = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + MAGIC).encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", key)):
            self.send_header(name, value)
        self.end_headers()
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 0x0F == 8:
                break
            mask = self.rfile.read(4)
            text = bytes(sign ^ mask[i % 4] for i, sign in enumerate(self.rfile.read(head[1] & 0x7F)))
            self.wfile.write(bytes([0x81, len(text)]) + text)
        self.close_connection = True


class PanelHandler(_Quiet):
    """/auth/check and /auth/enter as the panel answers them; every other path says that the panel answered."""

    def do_GET(self) -> None:
        panel: Panel = self.server.panel  # type: ignore[attr-defined]
        asked = urlsplit(self.path)
        service = self.headers.get("X-Pilot-Service", "")
        if asked.path == "/auth/check":
            panel.checks.append({"service": service, "uri": self.headers.get("X-Original-URI", "")})
            pairs = (pair.strip().split("=", 1) for pair in self.headers.get("Cookie", "").split(";") if "=" in pair)
            value = dict(pairs).get(f"pilot_service_{service}")
            self.answer(204 if value in panel.sessions else 401, b"", [("Cache-Control", "no-store")])
        elif asked.path == "/auth/enter":
            query = parse_qs(asked.query)
            if query.get("ticket", [""])[0] != "good":
                self.answer(403, b"no such ticket")
                return
            cookie = f"pilot_service_{service}=session-1; HttpOnly; SameSite=Lax; Path=/"
            self.answer(303, b"", [("Set-Cookie", cookie), ("Location", query.get("next", ["/"])[0])])
        else:
            said = {"panel": self.path, "headers": dict(self.headers.items())}
            self.answer(200, json.dumps(said).encode(), [("Set-Cookie", "pilot_session=panel")])

    do_POST = do_GET

    def address_string(self) -> str:
        return "gateway"


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    panel: Any


class Panel:
    """The panel's side of the login. sessions: cookie values that are let in; checks: what the gateway asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sessions = {"session-1"}
        self.checks: list[dict[str, str]] = []
        self.server: _UnixServer | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.server = _UnixServer(str(self.path), PanelHandler)
        self.server.panel = self
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def service() -> Iterator[int]:
    """A service on a free loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), ServiceHandler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class Talk:
    """A WebSocket of a browser: its handshake with the headers given, short texts, and when it was closed."""

    def __init__(self, port: int, headers: dict[str, str], path: str = "/ws") -> None:
        self.link = socket.create_connection(("127.0.0.1", port), timeout=10)
        lines = [f"GET {path} HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(b'0123456789abcdef').decode()}"]
        lines += [f"{name}: {value}" for name, value in ({"Host": f"127.0.0.1:{port}"} | headers).items()]
        self.link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self.link.recv(1)
            if not part:
                break
            answer += part
        self.status = int(answer.split(b" ")[1])

    def say(self, text: str) -> str:
        """Sends a text and returns the next one that comes."""
        self.send(text)
        return self.hear()

    def send(self, text: str) -> None:
        data, mask = text.encode(), b"\1\2\3\4"
        size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + len(data).to_bytes(2)
        self.link.sendall(b"\x81" + size + mask + bytes(sign ^ mask[i % 4] for i, sign in enumerate(data)))

    def hear(self) -> str:
        kind, size = self._exactly(2)
        if size > 125:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8))
        data = self._exactly(size)
        return data.decode() if kind & 0x0F in (1, 2) else self.hear()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.link.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def closed_within(self, seconds: float) -> float | None:
        """Seconds until the other side closed, or None."""
        begin = time.monotonic()
        self.link.settimeout(seconds)
        try:
            if self.link.recv(1) == b"":
                return time.monotonic() - begin
        except TimeoutError:
            return None
        except OSError:
            return time.monotonic() - begin
        return None
