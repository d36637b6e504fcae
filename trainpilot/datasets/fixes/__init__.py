"""What mends a dataset, one file each, found by looking into this folder; a file that begins with _ is no fix.

A fix has HELP, EXAMPLE (the arguments), `Params` and `steps(dataset, params)`, which yields what is to be done and does
nothing; `trainpilot.datasets.mending` then does it, the originals in the trash. Adding one is one file.
Used by `trainpilot dataset fix` and the job `dataset-fix`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from trainpilot.datasets.mending import Step, Subject
from trainpilot.errors import PilotError, Problems


class Repair(Protocol):
    """What a module of this folder has. Its name, with - for _, is the kind."""

    HELP: str
    EXAMPLE: str
    Params: type[BaseModel]

    def steps(self, dataset: Subject, params: Any) -> Iterable[Step]: ...


@cache
def fixes() -> dict[str, Repair]:
    """All fixes by kind."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: dict[str, Any] = {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}") for name in names}
    return modules


def find(kind: str) -> Repair:
    """The fix of that kind; PilotError lists those there are."""
    if kind not in fixes():
        raise PilotError("kind of fix", kind or "none", ", ".join(fixes()), "Choose one of these.")
    return fixes()[kind]


def options_of(kind: str, given: Mapping[str, Any]) -> BaseModel:
    """The parameters of a fix, checked. Problems names every wrong one."""
    try:
        return find(kind).Params.model_validate(dict(given))
    except ValidationError as error:
        raise Problems(
            PilotError(f"--{'.'.join(map(str, one['loc']))}", one.get("input"), one["msg"], "Correct it.")
            for one in error.errors()
        ) from error
