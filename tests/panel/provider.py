"""A server on this machine that speaks as much of RunPod's and Vast's API as stopping a pod needs. For test_idle.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "key-nobody-may-see"
PODS = {"abc123xyz", "7654321"}


@dataclass
class Provider:
    """address: without a final slash; errors: statuses to answer before anything else; stopped: pods, in order; asked:
    method and path of every request."""

    address: str = ""
    errors: list[int] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: bool = False  # as Vast does: 200, and success is false

    @property
    def hosts(self) -> dict[str, str]:
        return {"runpod": f"{self.address}/v1", "vast": f"{self.address}/api/v0"}

    def answer(self, method: str, path: str, key: str | None, body: bytes) -> tuple[int, object]:
        self.asked.append(f"{method} {path}")
        if self.errors:
            return self.errors.pop(0), {"error": "for the test"}
        if key != f"Bearer {KEY}":
            return 401, {"error": "unauthorized"}
        parts = path.strip("/").split("/")
        if method == "POST" and parts[:2] == ["v1", "pods"] and parts[3:] == ["stop"]:
            pod, answer = parts[2], {"id": parts[2], "desiredStatus": "EXITED"}
        elif method == "PUT" and parts[:3] == ["api", "v0", "instances"] and path.endswith("/"):
            if json.loads(body) != {"state": "stopped"}:
                return 400, {"success": False}
            pod, answer = parts[3], {"success": not self.refuses, "msg": "no such state" if self.refuses else ""}
        else:
            return 404, {}
        if pod not in PODS:
            return 404, {"error": "pod not found"}
        if not self.refuses:
            self.stopped.append(pod)
        return 200, answer


@contextmanager
def provider() -> Iterator[Provider]:
    here = Provider()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, value = here.answer(self.command, self.path, self.headers.get("Authorization"), body)
            said = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            if status in (301, 302):
                self.send_header("Location", "/v1/pods/abc123xyz/stop")
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = _any

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
