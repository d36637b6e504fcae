"""`add-trigger`: every caption begins with the trigger. One that has it elsewhere as a tag has it moved."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import Word, each_line, joined, starts_with, tags

NAME = "add-trigger"
HELP = "Put a trigger word before every caption that does not begin with it"
EXAMPLE = "add-trigger zorp"


class Params(BaseModel):
    """The trigger; several words or tags count as one."""

    model_config = ConfigDict(extra="forbid")

    word: Word = Field(description="Trigger word, or several separated by commas")


def about(params: Params) -> str:
    return f"trigger {params.word} added"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    own = [tag.casefold() for tag in tags(params.word)]

    def begun(line: str) -> str:
        if starts_with(line, params.word):
            return line
        found = tags(line)
        others = [tag for tag in found if tag.casefold() not in own]
        rest = line if len(others) == len(found) else joined(others)
        return f"{params.word}, {rest}" if rest.strip() else params.word

    return each_line(texts, begun)
