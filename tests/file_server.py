"""A server on this machine that hands out files as model hosts do: ranges, cuts, redirects, refusals, a Hub's API.

Used by the tests of downloads. What it should do with a path is said by `Site` before; what it saw is in `seen`.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Page:
    """How one path answers. cuts: bytes after which each of the next answers ends; gate: holds the body back until set,
    from `hold_at` bytes on; statuses: what the next requests get instead, with further headers."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    location: str = ""
    ranges: bool = True
    etag: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    always: tuple[int, dict[str, str]] | None = None
    token: str = ""  # without it: 401
    gate: threading.Event | None = None
    hold_at: int = 0
    pace: float = 0.0  # seconds a chunk


@dataclass
class Site:
    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """host:port"""
        return urlsplit(self.url).netloc

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path, names in lower case."""
        return [headers for asked, headers in self.seen if asked == path]

    def repository(self, repo: str, files: dict[str, bytes], large: tuple[str, ...] = (".safetensors",)) -> str:
        """A repository with the Hub's API; its commit."""
        commit = hashlib.sha1(repo.encode()).hexdigest()
        entries: list[dict[str, Any]] = []
        for path, body in files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(body)}
            entry["oid"] = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
            if path.endswith(large):
                entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}
            entries.append(entry)
            self.pages[f"/{repo}/resolve/{commit}/{path}"] = Page(body, etag=f'"{entry["oid"]}"')
        for revision in ("main", commit):
            self.pages[f"/api/models/{repo}/revision/{revision}"] = Page(json.dumps({"sha": commit}).encode())
        self.pages[f"/api/models/{repo}/tree/{commit}"] = Page(json.dumps(entries).encode())
        return commit


@contextmanager
def serving() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            site.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
            page = site.pages.get(path)
            if page is None:
                return self.plain(404, {"X-Error-Code": "EntryNotFound"})
            if page.token and self.headers.get("Authorization") != f"Bearer {page.token}":
                return self.plain(401, page.headers)
            if page.statuses or page.always:
                status, headers = page.statuses.pop(0) if page.statuses else page.always  # type: ignore[misc]
                return self.plain(status, headers)
            if page.location:
                return self.plain(302, {"Location": page.location, **page.headers})
            return self.file(page)

        def plain(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def file(self, page: Page) -> None:
            start, given = 0, self.headers.get("Range", "")
            end = len(page.body)
            current = self.headers.get("If-Range") in (None, page.etag)
            if page.ranges and given and current:
                first, _, last = given.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last or end) + 1)
                if start >= len(page.body):
                    return self.plain(416, {"Content-Range": f"bytes */{len(page.body)}"})
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(page.body)}")
            else:
                self.send_response(200)
            body = page.body[start:end]
            for name, value in (({"ETag": page.etag} if page.etag else {}) | page.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = page.cuts.pop(0) if page.cuts and len(body) > 1 else None
            self.body(page, body if cut is None else body[:cut], start)
            if cut is not None:
                self.close_connection = True
            return None

        def body(self, page: Page, body: bytes, start: int) -> None:
            step = 1 << 16
            try:
                for at in range(0, len(body), step):
                    if page.gate is not None and start + at >= page.hold_at:
                        page.gate.wait(30)
                    time.sleep(page.pace)
                    self.wfile.write(body[at : at + step])
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has left, as it may

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        for page in site.pages.values():
            if page.gate is not None:
                page.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
