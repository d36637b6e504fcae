"""Where each picture's caption lies, and how its text is replaced while everything else of the file stays as it is.

A caption is a file of its own or a row of metadata.jsonl. Encoding, byte order mark, line ends and surrounding space
are kept; of a row, only the caption's own characters change. Nothing is written here: the journal does that.
Used by the caption tools, the caption sets and the captioners' job.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.datasets import captions, layouts
from trainpilot.datasets.layouts import Found, Layout, printable
from trainpilot.errors import PilotError

_CODECS = {"Windows-1252": "cp1252", "Latin-1": "latin-1", "utf-8-sig": "utf-8"}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True)
class Place:
    """Where the caption of one picture lies. text: as read, None where there is none; line: its row, counted from 0."""

    image: Path
    file: Path
    text: str | None
    line: int | None = None


@dataclass(frozen=True)
class Replacement:
    """One file before and after; None: it is not there."""

    file: Path
    before: bytes | None
    after: bytes | None


@dataclass
class CaptionFiles:
    """The captions of a dataset by picture, the picture's path below `root` its name.

    notes: what a person should know about how captions were read.
    """

    root: Path
    column: str
    places: dict[str, Place] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> dict[str, str]:
        """Every caption there is, empty ones too."""
        return {name: place.text for name, place in self.places.items() if place.text is not None}

    def rewritten(self, texts: Mapping[str, str | None]) -> list[Replacement]:
        """The files that these captions change. None takes a caption away; pictures that share one take the first's.

        Raises PilotError where a text cannot be stored, or a caption lies where it must not be changed.
        """
        wanted: dict[Path, dict[int | None, str | None]] = {}
        for name, text in texts.items():
            place = self.places[name]
            wanted.setdefault(place.file, {}).setdefault(place.line, None if text is None else normal(text))
        made = []
        for file, rows in wanted.items():
            check_inside(self.root, file)
            before = file.read_bytes() if file.exists() else None
            after = self._after(file, before, rows)
            if after != before:
                made.append(Replacement(file, before, after))
        return made

    def _after(self, file: Path, before: bytes | None, rows: Mapping[int | None, str | None]) -> bytes | None:
        if None not in rows:
            assert before is not None
            return with_rows(file, before, {n: text for n, text in rows.items() if n is not None}, self.column)
        text = rows[None]
        if text is None:
            return None
        after, note = with_text(file, before, text)
        if note:
            self.notes.append(f"{printable(file.name)}: {note}")
        return after


def read(root: Path, *, caption_extension: str = ".txt", caption_column: str = "text") -> CaptionFiles:
    """The captions of a dataset in any layout. Raises PilotError as `layouts.discover` does.

    A caption file that cannot be read as text is left out, with a note.
    """
    layout = layouts.discover(root, caption_extension=caption_extension, caption_column=caption_column)
    top = layout.root
    if layouts.caption_folder(top) == top.parent / "captions":
        top = top.parent  # the inner images/ was given, whose captions lie beside it
    found = CaptionFiles(top.resolve(), caption_column, notes=list(layout.notes))
    rows: dict[Path, dict[Path, int]] = {}
    for one in layout.images:
        image = found.root / one.image.relative_to(top)
        name = image.relative_to(found.root).as_posix()
        if one.metadata is not None:
            metadata = found.root / one.metadata.relative_to(top)
            if metadata not in rows:
                rows[metadata] = _lines_of_pictures(metadata)
            text = None if one.caption_text is None else normal(one.caption_text)
            found.places[name] = Place(image, metadata, text, rows[metadata][image])
            continue
        path = one.caption_path or _new_file(layout, one, caption_extension)
        try:
            text = captions.read_caption(one.caption_path)[0] if one.caption_path else None
        except PilotError as problem:
            found.notes.append(f"{printable(path.name)}: {problem.given}: left as it is")
            continue
        found.places[name] = Place(image, found.root / path.relative_to(top), text)
    return found


def normal(text: str) -> str:
    """A caption as it is read: line ends are \\n, nothing around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def check_inside(root: Path, file: Path) -> None:
    """PilotError where a file is a link, or lies outside the dataset: what is changed must be the dataset's own."""
    if file.is_symlink() or not file.parent.resolve().is_relative_to(root):
        raise PilotError(
            file, "a link, or a file outside the dataset", f"a file of its own in {root}", "Put a copy in its place."
        )


def with_text(file: Path, data: bytes | None, text: str) -> tuple[bytes, str | None]:
    """The bytes of a caption file with another text, and a note where its encoding had to change.

    The first that reads back as the very same text is taken: the file's own encoding, UTF-8, UTF-8 with its mark.
    """
    mark, codec, body = _taken_apart(file, data) if data is not None else (b"", "utf-8", "\n")
    lead = body[: len(body) - len(body.lstrip())] if body.strip() else ""
    tail = body[len(body.rstrip()) :]
    ends = "\r\n" if "\r\n" in body else "\r" if "\r" in body else "\n"
    whole = lead + text.replace("\n", ends) + tail
    for put_mark, put_codec in ((mark, codec), (b"", "utf-8"), (codecs.BOM_UTF8, "utf-8")):
        try:
            made = put_mark + whole.encode(put_codec)
            reads = normal(captions.decode(file, made)[1])
        except (UnicodeEncodeError, PilotError):
            continue
        if reads == text and len(made) <= captions.LARGEST_CAPTION:
            same = data is None or (put_mark, put_codec) == (mark, codec)
            return made, None if same else f"is written as UTF-8: its text cannot be kept as {codec}"
    raise PilotError(
        file, f"a caption that cannot be stored: {printable(text[:60])}", "text of at most 1 MiB", "Correct it."
    )


def with_rows(file: Path, data: bytes, texts: Mapping[int, str | None], column: str) -> bytes:
    """metadata.jsonl with the captions of some lines replaced; every other character stays."""
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    lines = data[len(mark) :].decode("utf-8").splitlines(keepends=True)
    for number, text in texts.items():
        line = lines[number]
        start, end = _value_span(line, column)
        plain = line.isascii() or (text is not None and any("\ud800" <= c <= "\udfff" for c in text))
        # splitlines takes more characters for line ends than JSON does: these are written as escapes.
        value = json.dumps(text, ensure_ascii=plain)
        value = "".join(c if c.isascii() or len(f"a{c}a".splitlines()) == 1 else f"\\u{ord(c):04x}" for c in value)
        lines[number] = line[:start] + value + line[end:]
    made = mark + "".join(lines).encode("utf-8")
    if len(made) > layouts.LARGEST_METADATA:
        raise PilotError(file, "more than 256 MiB", "one short row a picture", "Shorten the captions.")
    return made


def _taken_apart(file: Path, data: bytes) -> tuple[bytes, str, str]:
    """(byte order mark, codec, text) of a caption file: together they are its bytes again."""
    encoding, _ = captions.decode(file, data)
    mark, codec = next(((m, c) for m, c in _MARKS if data.startswith(m)), (b"", _CODECS.get(encoding, encoding)))
    if encoding == "UTF-16 without mark" and not mark:
        codec = "utf-16-le" if not any(data[1::2]) else "utf-16-be" if not any(data[::2]) else "utf-8"
    try:
        return mark, codec, data[len(mark) :].decode(codec)
    except UnicodeDecodeError:
        return b"", "utf-8", data.decode("utf-8", "replace")


def _lines_of_pictures(metadata: Path) -> dict[Path, int]:
    """The first line of each picture that a metadata.jsonl names, as `layouts` finds it."""
    found: dict[Path, int] = {}
    place = metadata.parent
    for number, line in enumerate(metadata.read_bytes().decode("utf-8-sig").splitlines()):
        if line.strip():
            name = json.loads(line)["file_name"]
            image = next((at / name for at in (place, place / "images") if (at / name).is_file()), None)
            if image is not None:
                found.setdefault(image, number)
    return found


def _new_file(layout: Layout, one: Found, extension: str) -> Path:
    """Where a caption that is not there yet belongs: to the folder's other captions, in captions/, beside its image."""
    holders = {
        found.caption_path.parent for found in layout.images if found.caption_path and found.folder == one.folder
    }
    apart = layouts.caption_folder(one.image.parent)
    holder = next(iter(holders)) if len(holders) == 1 else apart or one.image.parent
    return holder / f"{one.image.stem}{extension}"


def _value_span(line: str, column: str) -> tuple[int, int]:
    """Where the value of a column begins and ends in a line that is one JSON object; the last of that name counts."""
    spans = [span for key, span in _members(line) if key == column]
    return spans[-1]


def _members(line: str) -> Iterator[tuple[str, tuple[int, int]]]:
    decoder = json.JSONDecoder()

    def skipped(at: int) -> int:
        while line[at] in " \t\r\n":
            at += 1
        return at

    at = skipped(line.index("{") + 1)
    while line[at] != "}":
        key, at = decoder.raw_decode(line, at)
        at = skipped(skipped(at) + 1)
        _, end = decoder.raw_decode(line, at)
        yield key, (at, end)
        at = skipped(end)
        if line[at] == ",":
            at = skipped(at + 1)
