"""Configurations of other trainers, read and written: one module or package of this folder for each dialect.

A dialect is pure: it sees texts, never the disk, and imports no torch. A folder scan finds it; modules whose name
begins with _ are what dialects share. Used by the verbs `import`, `export` and `train`, and by the panel.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Protocol, cast

from trainpilot.config.describe import did_you_mean
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Account, Item, Reading, Writing
from trainpilot.dialects._text import check_size
from trainpilot.errors import PilotError

__all__ = ["Account", "Dialect", "Item", "Reading", "Writing", "dialect", "dialects", "nothing", "recognise"]

# What a dialect asks for a file that its text names; None where it cannot be had.
Nearby = Callable[[str], str | None]
LEAST_SCORE = 0.5  # of `sniff`, below which a text is taken for something else


class Dialect(Protocol):
    """One way to write a training configuration.

    NAME is what `--to` and `--from` take; LABEL is for people; SUFFIX is the ending of a written file.
    """

    NAME: str
    LABEL: str
    SUFFIX: str

    def sniff(self, text: str) -> float:
        """How surely `text` is of this dialect, 0 to 1. Never raises."""
        ...

    def read(self, text: str, nearby: Nearby) -> Reading:
        """Our settings and what became of every key. Raises PilotError or Problems.

        nearby: gives the text of a file that the configuration names (a dataset file), or None.
        """
        ...

    def write(self, config: RunConfig) -> Writing:
        """The configuration as a file of that trainer. Raises PilotError where it has no such model family."""
        ...


def nothing(name: str) -> str | None:
    """No file can be had: for callers that hold only one text."""
    return None


@cache
def dialects() -> Mapping[str, Dialect]:
    """Every dialect of this installation, by NAME."""
    modules = (
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_")
    )
    return {module.NAME: cast("Dialect", module) for module in modules}


def dialect(name: str) -> Dialect:
    """A dialect by name; PilotError names those there are."""
    known = dialects()
    if name not in known:
        raise PilotError("dialect", name, ", ".join(known), did_you_mean(name, known, "Choose one of these."))
    return known[name]


def recognise(text: str, where: str = "file") -> Dialect:
    """The dialect a text is most likely written in. PilotError where none is likely. where: for the message."""
    check_size(text, where)
    scores = {name: found.sniff(text) for name, found in dialects().items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < LEAST_SCORE:
        labels = ", ".join(f"{name} ({found.LABEL})" for name, found in dialects().items())
        raise PilotError(where, "no configuration that is known", labels, "Name its dialect with --from.")
    return dialects()[best]
