"""`remove-trigger`: the trigger leaves every caption, as a tag or as the first words of a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import Word, each_line, joined, starts_with, tags

NAME = "remove-trigger"
HELP = "Take a trigger word out of every caption"
EXAMPLE = "remove-trigger zorp"


class Params(BaseModel):
    """The trigger; several words or tags count as one."""

    model_config = ConfigDict(extra="forbid")

    word: Word = Field(description="Trigger word, or several separated by commas")


def about(params: Params) -> str:
    return f"trigger {params.word} removed"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    own = [tag.casefold() for tag in tags(params.word)]

    def without(line: str) -> str:
        if starts_with(line, params.word):
            line = line[len(params.word) :].lstrip(", ")
        found = tags(line)
        kept = [tag for tag in found if tag.casefold() not in own]
        return line if len(kept) == len(found) else joined(kept)

    return each_line(texts, without)
