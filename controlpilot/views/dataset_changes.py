"""Changes of a dataset, each of which can be undone: a caption, a picture taken out, the repeats in the folder's name.

What is replaced or removed is kept in the trash first; the answer names its entry. Used by the Datasets pages and the
API.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from pydantic import BaseModel

from controlpilot.views.dataset_folders import caption_of, folder, found_picture
from controlpilot.views.datasets import Picture, pictures
from controlpilot.views.refusals import Conflict
from controlpilot.views.trash import Entry, Trash
from trainpilot.datasets.captions import LARGEST_CAPTION
from trainpilot.datasets.layouts import MOST_REPEATS, Found, Layout
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

_REPEATS = re.compile(r"^([0-9]{1,9})_(.+)$")


class Changed(BaseModel):
    """What a change did. undo: the entry of the trash that takes it back, "" where nothing was there before."""

    undo: str = ""
    dataset: str
    picture: Picture | None = None


def write_caption(workspace: Workspace, name: str, file: str, text: str, was: str | None = None) -> Changed:
    """Write one caption, keeping the earlier one. was: the text the person saw; another one now is a Conflict.

    Where captions live in metadata.jsonl, the picture's row is changed and the other rows stay as they are.
    """
    check_writable(workspace)
    root, layout, found = found_picture(workspace, name, file)
    clean = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(clean.encode()) > LARGEST_CAPTION:
        raise PilotError("caption", f"{len(clean)} letters", f"at most {LARGEST_CAPTION} bytes", "Shorten it.")
    if "\0" in clean:
        raise PilotError("caption", "a zero byte", "text", "Remove it.")
    present = caption_of(found)
    if was is not None and present != was.strip():
        raise Conflict("caption", present, was.strip(), "Somebody changed it meanwhile: reload, then edit again.")
    undo = ""
    if present != clean or not (found.caption_path or found.caption_text is not None):
        if found.caption_text is not None:
            metadata = _metadata_of(layout, found)
            undo = Trash(workspace).copy([metadata], f"caption of {file} in {name}").id
            write_beside(metadata, _with_row(metadata, found, clean))
        else:
            path = found.caption_path or _caption_place(layout, found)
            if os.path.lexists(path):
                undo = Trash(workspace).copy([path], f"caption of {file} in {name}").id
            write_beside(path, f"{clean}\n".encode())
    root, layout, found = found_picture(workspace, name, file)
    return Changed(undo=undo, dataset=name, picture=pictures(workspace, root, layout, [found])[0])


def _caption_place(layout: Layout, found: Found) -> Path:
    """Where the caption of a picture without one belongs: where the others are, else beside it."""
    holders = {one.caption_path.parent for one in layout.images if one.caption_path and one.folder == found.folder}
    holder = next(iter(holders)) if len(holders) == 1 else found.image.parent
    return holder / f"{found.image.stem}.txt"


def _metadata_of(layout: Layout, found: Found) -> Path:
    for holder in (found.image.parent, *found.image.parents):
        if (holder / "metadata.jsonl").is_file():
            return holder / "metadata.jsonl"
        if holder == layout.root:
            break
    raise PilotError("caption", "no metadata.jsonl", "the file that lists the picture", "Reload the page.")


def _with_row(metadata: Path, found: Found, text: str) -> bytes:
    """The file with one row's caption replaced; every other line keeps its bytes."""
    lines = metadata.read_bytes().splitlines(keepends=True)
    changed = False
    for number, line in enumerate(lines):
        plain = line.removeprefix(b"\xef\xbb\xbf")
        if not plain.strip():
            continue
        row = json.loads(plain)
        given = Path(str(row.get("file_name", "")))
        if not changed and found.image in (metadata.parent / given, metadata.parent / "images" / given):
            row["text"] = text
            ending = b"\n" if line.endswith(b"\n") else b""
            lines[number] = json.dumps(row, ensure_ascii=False).encode() + ending
            changed = True
    if not changed:
        raise PilotError("caption", "no row of this picture", "a row in metadata.jsonl", "Reload the page.")
    return b"".join(lines)


def remove_picture(workspace: Workspace, name: str, file: str) -> Changed:
    """Move a picture and its caption file to the trash, as one entry. The last picture of a dataset stays."""
    check_writable(workspace)
    _, layout, found = found_picture(workspace, name, file)
    if len(layout.images) == 1:
        raise Conflict("picture", "the only one", "a dataset with a picture", "Delete the dataset instead.")
    shared = [one for one in layout.images if one.caption_path == found.caption_path and one is not found]
    caption = [found.caption_path] if found.caption_path and not shared else []
    entry = Trash(workspace).move([found.image, *caption], f"picture {file} of {name}")
    return Changed(undo=entry.id, dataset=name)


def remove_dataset(workspace: Workspace, name: str) -> Changed:
    """Move a whole dataset to the trash."""
    check_writable(workspace)
    return Changed(undo=Trash(workspace).move([folder(workspace, name)], f"dataset {name}").id, dataset=name)


def rename(workspace: Workspace, name: str, repeats: int | None = None, subject: str | None = None) -> Changed:
    """Give the folder another N_name. Undone by renaming back: `dataset` of the answer is the new name.

    repeats: 1 to 10,000; None keeps what the name says. Raises Conflict where the new name is taken.
    """
    check_writable(workspace)
    path = folder(workspace, name)
    match = _REPEATS.match(path.name)
    count = repeats if repeats is not None else int(match[1]) if match else None
    rest = subject if subject is not None else match[2] if match else path.name
    if count is not None and not 1 <= count <= MOST_REPEATS:
        raise PilotError("repeats", count, f"1 to {MOST_REPEATS}", "Choose a number in this range.")
    if not re.fullmatch(r"[\w][\w .()+-]{0,99}", rest):
        raise PilotError("name", rest[:100], "letters, digits, spaces and . _ - ( ) +", "Choose another name.")
    new = path.with_name(f"{count}_{rest}" if count is not None else rest)
    if new == path:
        return Changed(dataset=name)
    if os.path.lexists(new):
        raise Conflict("dataset", f"{new.name} exists", "a free name", "Choose another name.")
    path.rename(new)
    return Changed(dataset=new.name)


def undo(workspace: Workspace, ident: str) -> Entry:
    """Take a deletion or a caption back. Raises NotFound and Conflict."""
    check_writable(workspace)
    return Trash(workspace).restore(ident)
