"""The flags of a command line, by a key table. Shared by the dialects that read commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainpilot.dialects._account import Ledger
from trainpilot.dialects._keys import Key


def parse_flags(
    words: Sequence[str], keys: Mapping[str, Key], ledger: Ledger, several: Collection[str] = ()
) -> dict[str, Any]:
    """The `--name value` pairs of a command line, untyped. A flag without a value is true.

    several: names that take several words, besides those whose kind is a list. argparse's beginnings of names are not
    taken: a misspelt name is to be seen as one.
    """
    found: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or word == "--":
            ledger.wrong("command line", word, "--name value", "Quote a value that holds spaces.")
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_") if name not in keys else name
        if equals:
            found[name] = value
            continue
        kind = keys[name].kind if name in keys else ""
        if kind == "bool":
            found[name] = True
            continue
        many = kind == "list" or name in several
        values = []
        while position < len(words) and not (words[position].startswith("--") and len(words[position]) > 2):
            values.append(words[position])
            position += 1
            if kind and not many:
                break
        # An unknown flag, or a missing value, which its kind then refuses, is true.
        found[name] = values if many else values[0] if len(values) == 1 else " ".join(values) if values else True
    return found
