"""A tab of the panel, as a page module declares it: `NAV = Nav("Training", 40, "train")`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Nav:
    """title: the tab's word; order: tabs are sorted by it; icon: a name of templates/_icons.html; view: the function
    of the module's blueprint that the tab leads to."""

    title: str
    order: int
    icon: str
    view: str = "index"


@dataclass(frozen=True)
class Tab:
    """A tab as base.html shows it."""

    title: str
    icon: str
    url: str
    current: bool
