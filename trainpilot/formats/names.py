"""How a family's modules are named in files: what every `families/<name>/names.py` provides, and how to get it.

Used by the readers, the writers and the identification; strings only, so that the panel can use it.
A names.py has: KOHYA and PEFT (component -> prefix), ONE_ALPHA (a Kohya file gives all modules of a component the same
alpha, because a common reader loses different ones), `place(component, module) -> Place`, its inverse
`modules(component, joined) -> tuple[str, ...]`, and `rows`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

from trainpilot.errors import PilotError
from trainpilot.families.card import cards


@dataclass(frozen=True)
class Place:
    """Where a module lives in the original model's layout.

    name: joined, without the component's prefix. parts: every module whose rows make up that matrix, in row order;
    one for most. swapped: the original has the upper and the lower half of the rows the other way round.
    """

    name: str
    parts: tuple[str, ...]
    swapped: bool = False


class Names(Protocol):
    """What a family's `names.py` offers."""

    KOHYA: dict[str, str]
    PEFT: dict[str, str]
    ONE_ALPHA: bool

    def place(self, component: str, module: str) -> Place:
        """Where `module` goes; PilotError for a module that the original layout does not have."""
        ...

    def modules(self, component: str, joined: str) -> tuple[str, ...]:
        """The modules of a joined name (without prefix), in row order; KeyError for an unknown name."""
        ...

    def rows(self, module: str, width: int) -> int:
        """Rows of one part of a fused matrix whose input is `width` wide."""
        ...


@cache
def names(family: str) -> Names:
    """The naming of a family; PilotError names the families there are."""
    if family not in cards():
        raise PilotError("family", family, ", ".join(cards()), "Choose one of these.")
    return cast(Names, importlib.import_module(f"trainpilot.families.{family}.names"))


def unmergeable(family: str, component: str, modules: Iterable[str], network_type: str) -> dict[str, str]:
    """Module -> reason, of modules that this kind of adapter cannot express in the original layout.

    network_type: "lora", "dora", "loha" or "lokr". A plan calls this before anything is spent.
    """
    table = names(family)
    chosen = set(modules)
    refused: dict[str, str] = {}
    for module in sorted(chosen):
        place = table.place(component, module)
        fused = len(place.parts) > 1
        if network_type in ("loha", "lokr") and (fused or place.swapped):
            refused[module] = f"{network_type} over a part of {place.name}, which is one matrix in the original model"
        elif network_type == "dora" and fused and not chosen.issuperset(place.parts):
            absent = [part for part in place.parts if part not in chosen]
            refused[module] = f"dora over {place.name} needs all of its rows; not adapted: {', '.join(absent)}"
    return refused


def refuse_unmergeable(family: str, state: Mapping[str, tuple[set[str], str]]) -> None:
    """Raise a PilotError that names every module of `state` (component -> modules, kind) that cannot be written."""
    refused: dict[str, str] = {}
    for component, (modules, kind) in state.items():
        refused |= unmergeable(family, component, modules, kind)
    if refused:
        shown = "; ".join(f"{module}: {reason}" for module, reason in list(refused.items())[:4])
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        raise PilotError(
            "kohya naming",
            shown + more,
            "lora over any module, dora over whole matrices, loha and lokr over modules of their own",
            "Train network.type lora, or choose network.targets without these modules, or (dora) all of a matrix.",
        )
