"""`utf8`: caption files in other encodings are written as UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import BaseModel, ConfigDict

from trainpilot.datasets.captions import read_caption
from trainpilot.datasets.mending import Step, Subject
from trainpilot.errors import PilotError

HELP = "Write caption files as UTF-8"
EXAMPLE = "utf8"


class Params(BaseModel):
    """Nothing to choose."""

    model_config = ConfigDict(extra="forbid")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    for path in dict.fromkeys(found.caption_path for found in dataset.layout.images if found.caption_path):
        try:
            text, note = read_caption(path)
        except PilotError:
            continue  # no text in any encoding: the doctor names it, and there is nothing to write
        if note and note.startswith("is not UTF-8"):
            yield Step(path, note, partial(_encoded, text))


def _encoded(text: str) -> bytes:
    return f"{text}\n".encode()
