"""Uploads of datasets: begin with a list of files, send each with tus 1.0, finish.

`POST /uploads` announces the files; each is a tus upload at `/uploads/<id>/files/<number>` (HEAD tells the offset,
PATCH appends). A tus client that knows only file names creates them at `POST /uploads/<id>/files`, which answers with
the Location of the file of that name. `POST /uploads/<id>/finish` checks all and puts the dataset in place.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from flask import Response, request, url_for
from pydantic import BaseModel
from werkzeug.exceptions import UnsupportedMediaType

from controlpilot.api import Raw, Resource
from controlpilot.desk import desk
from controlpilot.uploads import MOST_BYTES, Part, Upload, Uploads, Wanted, safe_path
from controlpilot.views.refusals import NotFound
from trainpilot.errors import PilotError

resource = Resource("uploads", "Uploads of datasets, resumable (tus 1.0)")
blueprint = resource.blueprint
VERSION = "1.0.0"
CHUNK_TYPE = "application/offset+octet-stream"
FINISH_SECONDS = 10.0


class UploadList(BaseModel):
    """Unfinished uploads, and those that ended lately."""

    uploads: list[Upload]


class Parts(BaseModel):
    """Every file of an upload and how much of it is here."""

    files: list[Part]
    id: str


class WrongVersion(PilotError):
    """Another version of tus."""

    http_status = 412


def _uploads() -> Uploads:
    return Uploads(desk().workspace)


@blueprint.after_request
def _tus(answer: Response) -> Response:
    answer.headers["Tus-Resumable"] = VERSION
    answer.headers["Cache-Control"] = "no-store"
    if request.method == "OPTIONS":
        answer.headers["Tus-Version"] = VERSION
        answer.headers["Tus-Extension"] = "creation"
        answer.headers["Tus-Max-Size"] = str(MOST_BYTES)
    return answer


def _speaks_tus() -> None:
    given = request.headers.get("Tus-Resumable")
    if given != VERSION:
        raise WrongVersion("Tus-Resumable", given or "nothing", VERSION, "Use a client of tus 1.0.")


def _number(name: str) -> int:
    given = request.headers.get(name, "")
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise PilotError(name, given[:40] or "nothing", "a whole number of bytes", "Send this header.")
    return int(given)


@resource.get("/uploads")
def index() -> UploadList:
    """All uploads."""
    return UploadList(uploads=_uploads().all())


@resource.post("/uploads", status=201, refuses=(409,))
def begin(body: Wanted) -> Upload:
    """Announce an upload: the dataset's name, and path and size of every file."""
    return _uploads().begin(body)


@resource.get("/uploads/<ident>")
def one(ident: str) -> Upload:
    """What has become of an upload."""
    return _uploads().read(ident)


@resource.delete("/uploads/<ident>", refuses=(409,))
def cancel(ident: str) -> None:
    """Drop an upload; what had arrived goes to the trash."""
    _uploads().cancel(ident)


@resource.get("/uploads/<ident>/files")
def files(ident: str) -> Parts:
    """Every file with its number, size and offset."""
    return Parts(id=ident, files=_uploads().parts(ident))


@resource.post("/uploads/<ident>/files", status=201, refuses=(409, 412), content="text/plain")
def create(ident: str) -> Raw:
    """Tus creation: Upload-Metadata names the file (`filename` or `relativePath`), Upload-Length its size."""
    _speaks_tus()
    length = _number("Upload-Length")
    named = _metadata(request.headers.get("Upload-Metadata", ""))
    path = str(safe_path(named.get("relativePath") or named.get("filename") or ""))
    found = next((part for part in _uploads().parts(ident) if part.path == path and part.size == length), None)
    if found is None:
        raise NotFound("Upload-Metadata", f"{path}, {length} bytes", "a file that was announced", "Begin anew.")
    place = url_for("api_uploads.offset", ident=ident, number=found.number, _external=False)
    return Response(status=201, headers={"Location": place}, mimetype="text/plain")


def _metadata(header: str) -> dict[str, str]:
    """`key base64,key base64` of tus. Raises PilotError."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise PilotError("Upload-Metadata", pair[:80], "key and base64 of UTF-8", "Encode it so.") from error
    return found


@resource.get("/uploads/<ident>/files/<int:number>")
def offset(ident: str, number: int) -> Raw:
    """Where to go on: Upload-Offset and Upload-Length. Tus asks with HEAD."""
    here, length = _uploads().offset(ident, number)
    headers = {"Upload-Offset": str(here), "Upload-Length": str(length)}
    return Response(status=200, headers=headers, mimetype="application/octet-stream")


@resource.patch("/uploads/<ident>/files/<int:number>", status=204, refuses=(409, 412, 415))
def append(ident: str, number: int) -> Raw:
    """Append a chunk at Upload-Offset; the answer's Upload-Offset is where the next one begins."""
    _speaks_tus()
    if request.mimetype != CHUNK_TYPE:
        raise UnsupportedMediaType(f"Content-Type: {request.mimetype or 'none'}")
    stream: Any = request.stream
    here = _uploads().append(ident, number, _number("Upload-Offset"), stream, request.content_length)
    return Response(status=204, headers={"Upload-Offset": str(here)})


@resource.post("/uploads/<ident>/finish", refuses=(409,))
def finish(ident: str) -> Upload:
    """Check an upload whose files are all here, and put the dataset in place.

    A large archive takes longer than an answer may: the state is "checking" then; ask for it.
    """
    return _uploads().finish_soon(ident, FINISH_SECONDS)
