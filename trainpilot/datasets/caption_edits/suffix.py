"""`suffix`: the same text behind every caption."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import SEPARATOR, Line, each_line

NAME = "suffix"
HELP = "Put a text behind every caption"
EXAMPLE = 'suffix "in watercolour"'


class Params(BaseModel):
    """The text, and what stands between it and the caption."""

    model_config = ConfigDict(extra="forbid")

    text: Line = Field(min_length=1, description="Text to put behind every caption")
    joiner: Line = Field(SEPARATOR, description="What stands between them")


def about(params: Params) -> str:
    return f"suffix {params.text!r} added"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    return each_line(texts, lambda line: f"{line}{params.joiner}{params.text}" if line.strip() else params.text)
