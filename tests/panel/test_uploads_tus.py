"""The upload over HTTP, as a public tus client speaks it, against the served panel."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import socket
import threading

from PIL import Image
from signed_in import headers_at, session_of
from tusclient.client import TusClient

TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {**TUS, "Content-Type": "application/offset+octet-stream"}


def noise(side: int) -> bytes:
    """A picture that does not compress: its PNG has about three bytes a pixel."""
    data = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(data, "PNG", compress_level=0)
    return data.getvalue()


def announced(dataset: str, files: dict[str, bytes], **more: object) -> dict[str, object]:
    return {"dataset": dataset, "files": [{"path": p, "size": len(d)} for p, d in files.items()], **more}


class CuttingProxy:
    """Passes bytes to a server and cuts every n-th connection after some of the request's body."""

    def __init__(self, port: int, cuts: int, after: int) -> None:
        self.port, self.left, self.after = port, cuts, after
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self.port))
        threading.Thread(target=self._copy, args=(server, client, None), daemon=True).start()
        self._copy(client, server, self.after)

    def _copy(self, source: socket.socket, target: socket.socket, after: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if after is not None and passed > after and self.left > 0:
                    self.left -= 1
                    break
                target.sendall(data)
        except OSError:
            return
        finally:
            for one in (source, target):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue


def test_a_public_client_uploads_through_twenty_cuts_bit_for_bit(live_panel):
    session = session_of(live_panel)
    files = {"a.png": noise(1200), "a.txt": b"a cat\n"}
    began = session.post(f"{live_panel.url}/api/v1/uploads", json=announced("5_cat", files))
    assert began.status_code == 201, began.text
    upload = began.json()["id"]
    proxy = CuttingProxy(int(live_panel.url.rsplit(":", 1)[1]), cuts=20, after=100_000)
    endpoint = f"http://127.0.0.1:{proxy.address}/api/v1/uploads/{upload}/files"
    client = TusClient(endpoint, headers=headers_at(session, proxy.address))
    for name, content in files.items():
        client.uploader(
            file_stream=io.BytesIO(content), chunk_size=300_000, metadata={"filename": name}, retries=40, retry_delay=0
        ).upload()
    assert proxy.left == 0, "the connection was cut twenty times"
    done = session.post(f"{live_panel.url}/api/v1/uploads/{upload}/finish").json()
    assert done["state"] == "done", done
    place = live_panel.settings.workspace.datasets / "images" / "5_cat"
    assert hashlib.sha256((place / "a.png").read_bytes()).digest() == hashlib.sha256(files["a.png"]).digest()
    assert (place / "a.txt").read_bytes() == b"a cat\n"


def test_the_answers_are_those_of_the_protocol(panel):
    client = panel.client
    data = noise(20)
    began = client.post("/api/v1/uploads", json=announced("cat", {"a b.png": data, "empty.txt": b""}))
    assert began.status_code == 201 and began.headers["Tus-Resumable"] == "1.0.0"
    files = f"/api/v1/uploads/{began.json['id']}/files"
    options = client.options(files)
    assert options.status_code in (200, 204)
    assert options.headers["Tus-Version"] == "1.0.0" and "creation" in options.headers["Tus-Extension"]
    named = base64.b64encode(b"a b.png").decode()
    made = client.post(files, headers={**TUS, "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {named}"})
    assert made.status_code == 201 and made.headers["Location"] == f"{files}/0"
    part = made.headers["Location"]

    def head() -> str:
        answer = client.head(part, headers=TUS)
        assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store" and answer.data == b""
        assert answer.headers["Upload-Length"] == str(len(data))
        return answer.headers["Upload-Offset"]

    assert head() == "0"
    sent = client.patch(part, data=data[:100], headers={**CHUNK, "Upload-Offset": "0"})
    assert (sent.status_code, sent.headers["Upload-Offset"], head()) == (204, "100", "100")
    for offset, status in (("0", 409), ("99", 409), ("101", 409), ("", 400), ("-1", 400), ("1e3", 400)):
        assert client.patch(part, data=b"x", headers={**CHUNK, "Upload-Offset": offset}).status_code == status
    assert client.patch(part, data=b"x", headers={"Upload-Offset": "100", **TUS}).status_code == 415
    old = {**CHUNK, "Tus-Resumable": "0.2.2", "Upload-Offset": "100"}
    assert client.patch(part, data=b"x", headers=old).status_code == 412
    too_long = client.patch(part, data=data, headers={**CHUNK, "Upload-Offset": "100"})
    assert too_long.status_code == 400 and "announced" in too_long.json["error"]["remedy"]
    assert head() == "100"
    assert client.patch(part, data=data[100:], headers={**CHUNK, "Upload-Offset": "100"}).status_code == 204
    done = client.post(f"{files.removesuffix('/files')}/finish")
    assert done.json["state"] == "done"
    assert client.patch(part, data=b"x", headers={**CHUNK, "Upload-Offset": str(len(data))}).status_code == 409


def test_hostile_names_are_refused_over_http(panel):
    for name in ("../../evil.png", "/etc/cron.d/evil.png", "a\u0000.png", "..\\evil.png", ".ssh/a.png"):
        answer = panel.client.post("/api/v1/uploads", json=announced("cat", {name: b"x"}))
        assert answer.status_code == 400 and answer.json["error"]["where"] == "path", name
    began = panel.client.post("/api/v1/uploads", json=announced("cat", {"a.png": b"x"}))
    evil = base64.b64encode(b"../../evil.png").decode()
    files = f"/api/v1/uploads/{began.json['id']}/files"
    answer = panel.client.post(files, headers={**TUS, "Upload-Length": "1", "Upload-Metadata": f"filename {evil}"})
    assert answer.status_code == 400
    for header in ("filename not-base64!", "filename"):
        answer = panel.client.post(files, headers={**TUS, "Upload-Length": "1", "Upload-Metadata": header})
        assert answer.status_code == 400, header


def test_an_upload_that_is_no_dataset_is_refused_and_nothing_appears(panel):
    upload = panel.client.post("/api/v1/uploads", json=announced("cat", {"a.txt": b"cat"})).json["id"]
    base = f"/api/v1/uploads/{upload}"
    panel.client.patch(f"{base}/files/0", data=b"cat", headers={**CHUNK, "Upload-Offset": "0"})
    done = panel.client.post(f"{base}/finish").json
    assert done["state"] == "failed" and "no pictures" in done["reason"]
    assert panel.client.get("/api/v1/datasets").json["datasets"] == []
    assert panel.client.get("/api/v1/uploads").json["uploads"][0]["state"] == "failed"
    assert panel.client.delete(base).status_code == 204
    assert panel.client.get("/api/v1/uploads").json["uploads"] == []
