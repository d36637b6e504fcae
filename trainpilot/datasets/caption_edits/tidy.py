"""`tidy`: one space, one comma, no tag twice; underscores to spaces where wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import each_line, joined, tags

NAME = "tidy"
HELP = "One space, one comma and no tag twice in every caption"
EXAMPLE = "tidy --underscores"
_SPACES = re.compile(r"\s+")
_BETWEEN_WORDS = re.compile(r"(?<=[^\W_]{2})_(?=[^\W_])|(?<=[^\W_])_(?=[^\W_]{2})")


class Params(BaseModel):
    """What else to mend."""

    model_config = ConfigDict(extra="forbid")

    underscores: bool = Field(False, description="Underscores between words become spaces; faces like ^_^ stay")


def about(params: Params) -> str:
    return "tidied, underscores to spaces" if params.underscores else "tidied"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    def tidied(line: str) -> str:
        if params.underscores:
            line = _BETWEEN_WORDS.sub(" ", line)
        first: dict[str, str] = {}
        for tag in tags(_SPACES.sub(" ", line)):
            first.setdefault(tag.casefold(), tag)
        return joined(list(first.values()))

    return each_line(texts, tidied)
