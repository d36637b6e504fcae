"""`replace`: find and replace in every caption, a plain text or a pattern.

Patterns are a person's own and may take for ever on some text, such as ^(a|aa)+$ on a row of letters a: all captions
together get two seconds, and a result may not outgrow a caption.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import regex
from pydantic import BaseModel, ConfigDict, Field

from trainpilot.datasets.caption_edits._text import Line
from trainpilot.datasets.captions import LARGEST_CAPTION
from trainpilot.errors import PilotError

NAME = "replace"
HELP = "Find and replace in every caption: a text, or a regular expression"
EXAMPLE = 'replace "grey" "gray" --whole-words'
PATIENCE = 2.0  # seconds of computing for all captions together: `regex` counts the processor's time


class Params(BaseModel):
    """What to look for and what to put there. In a pattern's replacement \\1 is its first group."""

    model_config = ConfigDict(extra="forbid")

    find: Line = Field(min_length=1, description="Text to look for")
    with_: Line = Field("", alias="with", description="Text to put in its place; nothing removes it")
    pattern: bool = Field(False, description="The text is a regular expression")
    ignore_case: bool = Field(False, description="Upper and lower case are the same")
    whole_words: bool = Field(False, description="Only where it is not part of a longer word")


def about(params: Params) -> str:
    return f"{params.find!r} replaced by {params.with_!r}"


def edit(texts: Mapping[str, str], params: Params) -> dict[str, str]:
    """Raises PilotError for a pattern or replacement that is wrong, too slow, or makes captions too long."""
    pattern = _compiled(params)
    end = time.process_time() + PATIENCE
    changed = {}
    for name, text in texts.items():
        new = _replaced(pattern, params, text, end - time.process_time())
        if new != text:
            changed[name] = new
    return changed


def _compiled(params: Params) -> Any:
    source = params.find if params.pattern else regex.escape(params.find, special_only=True, literal_spaces=True)
    if params.whole_words:
        source = rf"(?<!\w)(?:{source})(?!\w)"
    try:
        return regex.compile(source, regex.IGNORECASE if params.ignore_case else 0)
    except (regex.error, OverflowError, MemoryError, RecursionError) as error:
        raise PilotError("find", f"{params.find!r}: {error}", "a regular expression", "Correct it.") from error


def _replaced(pattern: Any, params: Params, text: str, seconds: float) -> str:
    size = 0

    def put(match: Any) -> str:
        nonlocal size
        made = match.expand(params.with_) if params.pattern else params.with_
        size += len(made)
        if size > LARGEST_CAPTION:
            raise PilotError("with", "captions of more than 1 MiB", "at most 1 MiB", "Replace by less.")
        return str(made)

    try:
        if seconds <= 0:
            raise TimeoutError
        return str(pattern.sub(put, text, timeout=seconds))
    except TimeoutError:
        raise PilotError(
            "find", f"{params.find!r} takes more than {PATIENCE:g} s", "a pattern that finds its matches at once",
            "Avoid choices that overlap inside of a repeat, such as (a|aa)+.",
        ) from None  # fmt: skip
    except (regex.error, IndexError) as error:
        raise PilotError(
            "with", f"{params.with_!r}: {error}", "text with groups that the pattern has", "Correct it."
        ) from error
