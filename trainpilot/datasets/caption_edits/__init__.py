"""What can be done to all captions of a dataset at once: one operation a file, found by looking into this folder.

An operation says what it is called and which parameters it takes, and is a pure function from texts to texts; a file
that begins with _ is none. Reading, writing and undo lie elsewhere (`caption_files`, `caption_journal`). Used by the
verb `captions` and the panel, which both make their options from `Params`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from trainpilot.errors import PilotError, Problems


class Operation(Protocol):
    """What a module of this folder has. edit returns the texts that differ, by the names it was given."""

    NAME: str
    HELP: str
    EXAMPLE: str
    Params: type[BaseModel]

    def about(self, params: Any) -> str: ...

    def edit(self, texts: Mapping[str, str], params: Any) -> dict[str, str]: ...


@cache
def operations() -> dict[str, Operation]:
    """All operations by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.NAME: module for module in modules}


def find(name: str) -> Operation:
    """The operation of that name; PilotError lists those there are."""
    known = operations()
    if name not in known:
        raise PilotError("operation", name or "none", ", ".join(known), "Choose one of these.")
    return known[name]


def check(operation: Operation, given: Mapping[str, Any]) -> BaseModel:
    """Parameters as the operation's model; Problems names every wrong one."""
    try:
        return operation.Params.model_validate(dict(given))
    except ValidationError as error:
        raise Problems(_problem(operation, detail) for detail in error.errors()) from error


def _problem(operation: Operation, detail: Any) -> PilotError:
    place = ".".join(str(part) for part in detail["loc"])
    where = f"{operation.NAME}.{place}" if place else operation.NAME
    return PilotError(where, str(detail.get("input"))[:200], detail["msg"].removeprefix("Value error, "), "Correct it.")
