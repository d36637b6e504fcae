"""The kinds of jobs, one file each, found by looking into this folder; a file that begins with _ is no kind.

A kind says what it is called, what it needs (gpu, cpu or net), which parameters it takes, and runs. Its module must
load without torch: what is heavy is imported by `run`. Used by `JobDir` and the verb `run`; the panel reaches the
parameters' models through `find`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from trainpilot.errors import PilotError, Problems
from trainpilot.runs.secrets import redact

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag


class Kind(Protocol):
    """What a module of this folder has. run does the work and returns one sentence about what came of it; it raises
    StopRequested where it was stopped, and PilotError where a person must act (RunFailed where a retry may help)."""

    KIND: str
    LABEL: str
    RESOURCE: Resource
    Params: type[BaseModel]

    def title(self, params: Any) -> str: ...

    def run(self, job: JobDir, params: Any, progress: Progress, stop: StopFlag) -> str: ...


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.KIND: module for module in modules}


def find(name: str) -> Kind:
    """The kind of that name; PilotError lists those there are."""
    known = kinds()
    if name not in known:
        raise PilotError("kind of job", name or "none", ", ".join(known), "Choose one of these.")
    return known[name]


def check(kind: Kind, given: Mapping[str, Any]) -> BaseModel:
    """Parameters as the kind's model; Problems names every wrong one."""
    try:
        return kind.Params.model_validate(dict(given))
    except ValidationError as error:
        raise Problems(_problem(kind, detail) for detail in error.errors()) from error


def _problem(kind: Kind, detail: Any) -> PilotError:
    place = ".".join(str(part) for part in detail["loc"])
    names = ", ".join(kind.Params.model_fields)
    allowed = names if detail["type"] == "extra_forbidden" else str(detail["msg"]).removeprefix("Value error, ")
    shown = redact(str(detail.get("input")))[:200]
    return PilotError(f"{kind.KIND}.{place}" if place else kind.KIND, shown, allowed, "Correct it.")
