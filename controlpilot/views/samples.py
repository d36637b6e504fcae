"""The samples of a run as a matrix of steps and prompts, each with what its PNG says of itself.

Only the text at the beginning of a PNG is read; no picture is decoded. Used by the run's pages and the API.
"""

from __future__ import annotations

import re
import struct
import zlib
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, Field

from controlpilot.measuring import measuring
from controlpilot.views.refusals import NotFound
from trainpilot.workspace import Workspace

FILE = re.compile(r"step-(\d{1,12})_p(\d{1,4})\.png")
ROWS = 40  # steps given at once
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST_TEXT = 64 << 10


class Sample(BaseModel):
    """One picture. bytes_per_pixel: of the file; a blank picture has almost none, noise about three."""

    file: str
    step: int
    prompt_number: int
    prompt: str
    negative: str
    seed: str
    settings: dict[str, str] = Field(description="Further text of the PNG: steps, guidance, sampler ...")
    width: int
    height: int
    bytes_per_pixel: float
    changed: int = Field(description="Nanoseconds; part of the picture's address, so that browsers may keep it")


class Matrix(BaseModel):
    """Rows are steps, the newest first; columns are prompts. A cell is null where a picture is missing."""

    steps: list[int]
    prompts: list[str]
    cells: list[list[Sample | None]]
    total: int = Field(description="Steps with samples, of which `steps` are a part")


def matrix(run: Path, before: int | None = None, rows: int = ROWS) -> Matrix:
    """The newest `rows` steps with samples (below step `before`, where given), and all prompts."""
    found: dict[int, dict[int, str]] = {}
    folder = run / "samples"
    for path in folder.iterdir() if folder.is_dir() else ():
        match = FILE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {})[int(match[2])] = path.name
    steps = sorted((step for step in found if before is None or step < before), reverse=True)[: max(1, rows)]
    width = max((number for pictures in found.values() for number in pictures), default=-1) + 1
    cells = [
        [read(run, name) if (name := found[step].get(number)) else None for number in range(width)] for step in steps
    ]
    prompts = [next((row[number].prompt for row in cells if row[number]), "") for number in range(width)]  # type: ignore[union-attr]
    return Matrix(steps=steps, prompts=prompts, cells=cells, total=len(found))


def read(run: Path, name: str) -> Sample | None:
    """One sample by its file name. None where the file is no PNG, or is gone."""
    match = FILE.fullmatch(name)
    if match is None:
        return None
    path = run / "samples" / name
    try:
        stat = path.stat()
        width, height, text = _about(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, ValueError):
        return None
    known = dict(text)
    known.pop("parameters", None)
    return Sample(
        file=name,
        step=int(match[1]),
        prompt_number=int(match[2]),
        prompt=known.pop("prompt", ""),
        negative=known.pop("negative_prompt", ""),
        seed=known.pop("seed", ""),
        settings=known,
        width=width,
        height=height,
        bytes_per_pixel=round(stat.st_size / max(1, width * height), 4),
        changed=stat.st_mtime_ns,
    )


def file_of(run: Path, name: str) -> Path:
    """The file of a sample, for sending. NotFound for anything that is not one."""
    path = run / "samples" / name
    if not FILE.fullmatch(name) or path.is_symlink() or not path.is_file():
        raise NotFound("sample", repr(name[:80]), "a sample of this run", "It may have been replaced; reload the page.")
    return path


@lru_cache(maxsize=20_000)
def _about(path: Path, changed: int, size: int) -> tuple[int, int, tuple[tuple[str, str], ...]]:
    """Width, height and text of a PNG, from the chunks before its first pixels. ValueError where it is none."""
    text: list[tuple[str, str]] = []
    width = height = 0
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            raise ValueError("not a PNG")
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"IDAT", b"IEND"):
                break
            if kind == b"IHDR":
                width, height = struct.unpack(">II", file.read(8))
                file.seek(length - 8 + 4, 1)
            elif kind in (b"iTXt", b"tEXt") and length <= _LONGEST_TEXT:
                data = file.read(length)
                file.seek(4, 1)
                if (entry := _text(kind, data)) is not None:
                    text.append(entry)
            else:
                file.seek(length + 4, 1)
    if not width or not height:
        raise ValueError("a PNG without a size")
    return width, height, tuple(text)


def _text(kind: bytes, data: bytes) -> tuple[str, str] | None:
    key, _, rest = data.partition(b"\0")
    if kind == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if len(rest) < 2:
        return None
    compressed = rest[0]
    value = rest[2:].split(b"\0", 2)[-1]
    if compressed:
        engine = zlib.decompressobj()
        try:
            value = engine.decompress(value, _LONGEST_TEXT)
        except zlib.error:
            return None
    return key.decode("latin-1"), value.decode("utf-8", "replace")


def small(workspace: Workspace, run: Path, name: str) -> Path | None:
    """The thumbnail of a sample; None where it is not made yet, and then it will be. NotFound as `file_of`."""
    path = file_of(run, name)
    work = measuring(workspace)
    known = work.facts([path]).get(path)
    if known is None:
        work.want([path], urgent=True)
        return None
    return work.thumbnail(known.sha256)
