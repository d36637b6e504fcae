"""`prune`: tags leave every caption. What describes the subject itself belongs to the trigger, not to a tag.

A tag that stays in the captions is learnt as something that can be asked for; one that is taken out is learnt as part
of the trigger. `caption_tags.suggest` says which tags to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import Word, each_line, joined, tags

NAME = "prune"
HELP = "Take tags out of every caption: those that describe the subject itself"
EXAMPLE = 'prune "blue eyes" "* hair"'


class Params(BaseModel):
    """The tags. * stands for any text and ? for any letter; upper and lower case are the same."""

    model_config = ConfigDict(extra="forbid")

    tags: list[Word] = Field(min_length=1, max_length=1000, description="Tags to take out; * stands for any text")


def about(params: Params) -> str:
    rest = f" and {len(params.tags) - 3} more" if len(params.tags) > 3 else ""
    return f"pruned: {', '.join(params.tags[:3])}{rest}"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    patterns = [tag.casefold().replace("[", "[[]") for tag in params.tags]

    def pruned(line: str) -> str:
        found = tags(line)
        kept = [tag for tag in found if not any(fnmatchcase(tag.casefold(), pattern) for pattern in patterns)]
        return line if len(kept) == len(found) else joined(kept)

    return each_line(texts, pruned)
