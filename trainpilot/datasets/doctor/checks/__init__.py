"""The checks, one file each, found by looking into this folder; the order of a report is that of importance.

A check has TITLE (what it looks for, in words), POINTS (what it takes off the score of 100 where everything is
affected), WHY (why it matters) and `look(case)`, which yields findings. Adding one is one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding


class Check(Protocol):
    """What a module of this folder has."""

    TITLE: str
    POINTS: float
    WHY: str

    def look(self, case: Case) -> Iterable[Finding]: ...


@cache
def checks() -> dict[str, Check]:
    """All checks by name, the weightiest first."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))
    modules: dict[str, Any] = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: -item[1].POINTS))
