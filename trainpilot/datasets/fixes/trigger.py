"""`trigger`: every caption begins with the trigger word. The same as `trainpilot captions ... add-trigger`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets import caption_files, caption_tools
from trainpilot.datasets.caption_edits import add_trigger, find
from trainpilot.datasets.mending import Step, Subject

HELP = "Put the trigger word before every caption that does not begin with it"
EXAMPLE = "trigger --trigger zorp"


class Params(BaseModel):
    """The word."""

    model_config = ConfigDict(extra="forbid")

    trigger: str = Field(min_length=1, max_length=200, description="Trigger word")


def steps(dataset: Subject, params: Params) -> Iterator[Step]:
    files = caption_files.read(dataset.root)
    wanted = caption_tools.preview(files, find(add_trigger.NAME), add_trigger.Params(word=params.trigger))
    for change in wanted.replacements:
        if change.after is not None:
            yield Step(change.file, f"begins with {params.trigger}", partial(bytes, change.after))
