"""Captions as lines of tags, for the operations.

A caption of several lines holds alternatives, one of which is drawn (`captions.wildcards`), so that an operation is
done to each line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

SEPARATOR = ", "
_BREAKS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, halves of one, line and paragraph ends


def tags(line: str) -> list[str]:
    """The parts between commas, without empty ones."""
    return [part.strip() for part in line.split(",") if part.strip()]


def joined(parts: list[str]) -> str:
    return SEPARATOR.join(parts)


def each_line(texts: Mapping[str, str], change: Callable[[str], str]) -> dict[str, str]:
    """The texts that differ once `change` was done to each of their lines; empty lines between others stay empty."""
    made = {
        name: "\n".join(change(line) if line.strip() or not text else line for line in text.split("\n"))
        for name, text in texts.items()
    }
    return {name: text for name, text in made.items() if text != texts[name]}


def starts_with(line: str, word: str) -> bool:
    """Whether a line begins with that word, in any case; a longer word that begins like it is another word."""
    return line[: len(word)].casefold() == word.casefold() and not line[len(word) : len(word) + 1].isalnum()


def _one_line(given: str) -> str:
    if any(unicodedata.category(character) in _BREAKS for character in given):
        raise ValueError("text of one line")
    return given


def _word(given: str) -> str:
    given = _one_line(given.strip())
    if not given or not tags(given):
        raise ValueError("a word")
    return given


Line = Annotated[str, Field(max_length=2000), AfterValidator(_one_line)]
Word = Annotated[str, Field(max_length=500), AfterValidator(_word)]
