"""The job `download`: a repository of the Hugging Face Hub, or one file by its address, into models/.

Stopped or cut, it goes on where it was: finished files stay, and the unfinished one keeps its bytes. Run by the
courier, which hands over the tokens; nothing here prints them, and they go to their own host only.
"""

from __future__ import annotations

import re
import time
import unicodedata
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainpilot.errors import PilotError
from trainpilot.models.web import Web, carries_secret, check_url, shown
from trainpilot.runs.atomic import read_json, write_json
from trainpilot.runs.process import monotonic
from trainpilot.runs.secrets import taken

if TYPE_CHECKING:
    from trainpilot.models.fetch import Fetched, Wanted
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "download"
LABEL = "Download"
RESOURCE: Resource = "net"
WINDOW = 15.0  # seconds over which the rate is averaged
TELL = 0.5  # seconds between two states
_NAME_BYTES = 150
# What a model's folder is made of, as far as training and captioning read it. Pickles run code when they are opened;
# an ONNX graph is made of the runtime's own operators and holds no code.
SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".md", ".onnx", ".csv")
_PLACE = re.compile(r"[\w][\w. -]*(/[\w][\w. -]*)*")


class Params(BaseModel):
    """Either repo (with revision and files), or url (with name and sha256). to: a folder below models/."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    repo: str = Field("", description="Repository of the Hugging Face Hub, owner/name")
    revision: str = Field("main", max_length=200, description="Branch, tag or commit of the repository")
    files: list[str] = Field([], max_length=500, description="Files of the repository, or patterns; none: all")
    url: str = Field("", max_length=4000, description="Address of one .safetensors file")
    name: str = Field("", max_length=150, description="Name of the file on disk; none: the server's")
    sha256: str = Field("", pattern=r"^([0-9a-fA-F]{64})?$", description="Hash that the file must have")
    to: str = Field("", max_length=200, description="Folder below models/; none: after the repository")
    title: str = Field("", max_length=200, description="What people call it")

    @field_validator("repo")
    @classmethod
    def _owner_and_name(cls, given: str) -> str:
        from trainpilot.models.hub import REPO

        if given and not REPO.fullmatch(given):
            raise ValueError("owner/name, as in the repository's address")
        return given

    @field_validator("url")
    @classmethod
    def _plain_address(cls, given: str) -> str:
        if not given:
            return given
        try:
            check_url(given)
        except PilotError as error:
            raise ValueError(f"{error.given} is refused, {error.allowed} is taken") from error
        if name := carries_secret(given):
            raise ValueError(f"an address without {name}=...: save the token on the Models page, it is sent by itself")
        return given

    @field_validator("to")
    @classmethod
    def _inside(cls, given: str) -> str:
        if given and (not _PLACE.fullmatch(given) or ".." in given):
            raise ValueError("a folder below models/, such as sdxl or sdxl/vae")
        return given

    @field_validator("name")
    @classmethod
    def _plain_name(cls, given: str) -> str:
        if given and safe_name(given) != given:
            raise ValueError("a plain file name")
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Params:
        if bool(self.repo) == bool(self.url):
            raise ValueError("either repo or url")
        return self


def title(params: Params) -> str:
    return params.title or params.repo or params.name or shown(params.url).rpartition("/")[2] or shown(params.url)


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    web = Web(taken())
    progress.say(f"looking at {params.repo or shown(params.url)}")
    job.state.write("look", force=True)
    if params.repo:
        return _repository(job, params, _Transfers(job, web, progress, stop))
    return _address(job, params, _Transfers(job, web, progress, stop))


def _repository(job: JobDir, params: Params, transfers: _Transfers) -> str:
    from trainpilot.models.fetch import Wanted, need_space
    from trainpilot.models.hub import chosen, listing

    target = job.workspace.models / (params.to or params.repo.rpartition("/")[2])
    plan = read_json(job.path / "download.json")
    # A repository may change while we wait: the commit of the first look is kept.
    commit, files = listing(transfers.web, params.repo, str((plan or {}).get("commit") or params.revision))
    picked = chosen(files, params.files, params.repo)
    unsafe = [file.path for file in picked if not file.path.endswith(SUFFIXES)]
    if params.files and unsafe:
        raise PilotError("files", ", ".join(unsafe[:5]), ", ".join(SUFFIXES), "Take the .safetensors version.")
    if unsafe:
        transfers.say(f"left out, not needed for training or able to run code: {', '.join(unsafe[:10])}")
    picked = [file for file in picked if file.path.endswith(SUFFIXES)]
    write_json(job.path / "download.json", {"commit": commit, "to": str(target), "files": [f.path for f in picked]})
    todo = []
    for file in picked:
        place = target / _inner(file.path)
        if place.is_file() and place.stat().st_size == file.size:
            transfers.already(file.path, file.size)
        else:
            todo.append(Wanted(file.url, place, file.size, file.sha256, file.git_sha1))
    transfers.expect(sum(file.size for file in picked), len(picked))
    need_space(target, sum((wanted.size or 0) - _arrived(wanted) for wanted in todo))
    for wanted in todo:
        transfers.bring(wanted)
    _look_inside([target / _inner(file.path) for file in picked])
    return f"{len(picked)} files, {transfers.of / 1e9:.2f} GB, in {target} (commit {commit[:12]})"


def _address(job: JobDir, params: Params, transfers: _Transfers) -> str:
    from trainpilot.models.fetch import Wanted

    plan = read_json(job.path / "download.json") or {}
    name = params.name or str(plan.get("name") or "") or _told_name(transfers.web, params.url)
    if not name.lower().endswith(".safetensors"):
        remedy = "Take the .safetensors version, or give the file's name yourself if the address does not tell it."
        raise PilotError("url", f"a file named {name or '(nothing)'}", "a .safetensors file", remedy)
    place = job.workspace.models / params.to / name
    write_json(job.path / "download.json", {"name": name, "to": str(place.parent)})
    done = Path(str(plan.get("done") or ""))
    if not (plan.get("done") and done.is_file()):
        transfers.expect(0, 1)
        fetched = transfers.bring(Wanted(params.url, place, None, params.sha256.lower() or None))
        write_json(job.path / "download.json", {"name": name, "done": str(place), "sha256": fetched.sha256})
    _look_inside([place])
    return f"{place} ({place.stat().st_size / 1e9:.2f} GB)"


def _look_inside(places: list[Path]) -> None:
    """A file that came whole may still be no model: an error page with status 200, or another format by that name."""
    from trainpilot.models.safetensors_header import read_header

    for place in places:
        if place.suffix == ".safetensors":
            read_header(place)


def _told_name(web: Web, url: str) -> str:
    """The name that the server gives the file, else the address's last part."""
    from trainpilot.models.refusals import refusal

    answer = web.get(url, {"Range": "bytes=0-0"})
    answer.close()
    if answer.status not in (200, 206, 416, 429, 503):
        raise refusal(answer)
    message = Message()
    message["Content-Disposition"] = answer.headers.get("Content-Disposition", "")
    given = safe_name(str(message.get_filename() or ""))
    return given or safe_name(unquote(urlsplit(url).path).rpartition("/")[2])


def safe_name(given: str) -> str:
    """A file name from a stranger as one that is only a name: no folders, no control characters, no leading dot."""
    name = unicodedata.normalize("NFC", given).replace("\\", "/").rpartition("/")[2]
    name = re.sub(r"[^\w.()\[\]+ -]", "_", name).strip(" .-_")
    stem, dot, ending = name.rpartition(".")
    while len(name.encode()) > _NAME_BYTES and stem:
        stem = stem[:-1]
        name = f"{stem}{dot}{ending}"
    return name if len(name.encode()) <= _NAME_BYTES else ""


def _inner(path: str) -> PurePosixPath:
    """A path inside a repository as one below our folder; PilotError where it would lead out."""
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part or part.startswith(".") for part in parts):
        raise PilotError("files", repr(path)[:200], "plain paths", "This repository is not safe to download.")
    return PurePosixPath(path)


def _arrived(wanted: Wanted) -> int:
    part = wanted.place.with_name(f".{wanted.place.name}.part")
    return part.stat().st_size if part.is_file() else 0


class _Transfers:
    """The files of one job, one after the other, with what is told about them."""

    def __init__(self, job: JobDir, web: Web, progress: Progress, stop: StopFlag) -> None:
        self.job, self.web, self.progress, self.stop = job, web, progress, stop
        self.before, self.of, self.files, self.files_done = 0, 0, 0, 0
        self.file = ""
        self._speeds: list[tuple[float, int]] = []
        self._told = float("-inf")

    def say(self, text: str) -> None:
        self.progress.say(text)
        self.job.events.append("notice", text=text)

    def expect(self, size: int, files: int) -> None:
        self.of, self.files = size, files
        self.progress.phase("download (MB)", of=max(1, size // 1_000_000), done=self.before // 1_000_000)

    def already(self, path: str, size: int) -> None:
        self.before += size
        self.files_done += 1
        self.say(f"{path} is there already")

    def bring(self, wanted: Wanted) -> Fetched:
        from trainpilot.models.fetch import Watch, fetch

        inside = self.job.workspace.models.resolve()
        if not wanted.place.parent.resolve().is_relative_to(inside):
            given = f"a link out of {self.job.workspace.models}"
            raise PilotError(wanted.place.parent, given, "a folder below models/", "Choose another folder.")
        self.file = wanted.place.name
        began = monotonic()
        fetched = fetch(self.web, wanted, Watch(self.stop.check, self._bytes, self.say, self._sleep))
        self.before += fetched.size
        self.files_done += 1
        self.job.events.append(
            "file",
            file=str(wanted.place),
            bytes=fetched.size,
            seconds=round(monotonic() - began, 2),
            sha256=fetched.sha256,
            compared=fetched.compared,
            resumed_from=fetched.resumed_from,
            source=shown(wanted.url),
        )
        self._tell(self.before, force=True)
        return fetched

    def _bytes(self, done: int, of: int | None) -> None:
        if self.files == 1 and of:
            self.of = of
        now = monotonic()
        if now - self._told >= TELL:
            self._speeds = [(t, n) for t, n in self._speeds if now - t < WINDOW] + [(now, self.before + done)]
            self._tell(self.before + done)

    def _tell(self, done: int, *, force: bool = False) -> None:
        self._told = monotonic()
        (first, begun), (last, reached) = (self._speeds or [(0.0, 0)])[0], (self._speeds or [(0.0, 0)])[-1]
        rate = (reached - begun) / (last - first) if last > first and reached > begun else None
        more: dict[str, Any] = {"file": self.file, "files": self.files, "files_done": self.files_done}
        if rate:
            more["rate"] = round(rate)
        eta = (self.of - done) / rate if rate and self.of else None
        self.job.state.write("download", done, self.of, eta=eta, force=force, unit="bytes", **more)
        self.progress.update(done // 1_000_000)

    def _sleep(self, seconds: float) -> None:
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            self.stop.check()
            time.sleep(min(left, 0.05))
        self.stop.check()
