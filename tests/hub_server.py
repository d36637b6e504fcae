"""A server on this machine that takes uploads as the Hugging Face Hub does: create, preupload, LFS, commit.

Used by the tests of publishing, with the real huggingface_hub as its client. `repos` is what it holds, `seen` what it
was asked, `refuse` what it refuses: the beginning of a path -> status.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

LARGE = (".safetensors", ".png", ".zip")


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    url: str
    token: str
    owners: tuple[str, ...] = ("me",)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    gate: threading.Event | None = None  # holds back what is sent to the store until it is set


@contextmanager
def serving(token: str) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.take("GET")

        def do_POST(self) -> None:
            self.take("POST")

        def do_PUT(self) -> None:
            self.take("PUT")

        def take(self, method: str) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.chunks()
            hub.seen.append((method, path))
            status = next((code for start, code in hub.refuse.items() if path.startswith(start)), 0)
            # What a store is sent to carries no token: the address itself is the permission.
            if (
                not status
                and not path.startswith("/store/")
                and self.headers.get("Authorization") != f"Bearer {hub.token}"
            ):
                status = 401
            if status:
                return self.answer(status, {"error": f"refused with {status}"})
            return self.answer(*self.dispatch(method, path, body))

        def chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline().strip() or b"0", 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def dispatch(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
            if path == "/api/repos/create":
                return self.create(json.loads(body))
            if path == "/api/validate-yaml":
                return 200, {"errors": [], "warnings": []}
            if path.startswith("/store/"):
                if hub.gate is not None:
                    hub.gate.wait(30)
                oid = path.rpartition("/")[2]
                if hashlib.sha256(body).hexdigest() != oid:
                    return 400, {"error": "another hash"}
                hub.objects[oid] = body
                return 200, {}
            if path.endswith(".git/info/lfs/objects/batch"):
                wanted = json.loads(body)["objects"]
                return 200, {"transfer": "basic", "objects": [self.upload(one) for one in wanted]}
            if path.startswith("/api/models/"):
                owner, name, *rest = path.removeprefix("/api/models/").split("/")
                repo = hub.repos.get(f"{owner}/{name}")
                if repo is None:
                    return 404, {"error": "Repository not found"}
                if not rest:
                    return 200, {"id": f"{owner}/{name}", "private": repo.private, "sha": "0" * 40}
                if rest[0] == "preupload":
                    return 200, {"files": [self.mode(one) for one in json.loads(body)["files"]]}
                if rest[0] == "commit":
                    return self.commit(f"{owner}/{name}", repo, body)
            return 404, {"error": f"no {method} {path}"}

        def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.partition("/")[0] not in hub.owners:
                return 403, {"error": f"You don't have the rights to create a model under {name.partition('/')[0]}"}
            if name in hub.repos:
                return 409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"}
            private = asked.get("private", asked.get("visibility") == "private")
            hub.repos[name] = Repo(bool(private))
            return 200, {"url": f"{hub.url}/{name}", "name": name, "id": name}

        def mode(self, one: dict[str, Any]) -> dict[str, Any]:
            large = one["path"].endswith(LARGE)
            return {
                "path": one["path"],
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                "oid": None,
            }

        def upload(self, one: dict[str, Any]) -> dict[str, Any]:
            if one["oid"] in hub.objects:
                return one
            return one | {"actions": {"upload": {"href": f"{hub.url}/store/{one['oid']}"}}}

        def commit(self, name: str, repo: Repo, body: bytes) -> tuple[int, Any]:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    repo.commits.append(value["summary"])
                elif line["key"] == "file":
                    repo.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repo.files[value["path"]] = hub.objects[value["oid"]]
            oid = hashlib.sha1(body).hexdigest()
            return 200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"}

        def answer(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}", token)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        if hub.gate is not None:
            hub.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
