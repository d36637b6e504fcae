"""Pictures to order: those in the album are taken from it, the others are painted and kept. Used by grids and
evaluations; whatever ends it half-way, what was painted counts the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from trainpilot.evaluate.album import Album, Order
from trainpilot.evaluate.easel import Easel

Tell = Callable[[int, int], None]


class Painter:
    """An easel and its album. painted: pictures made since it was made, for what is told and for tests."""

    def __init__(self, easel: Easel, album: Album, check: Callable[[], object]) -> None:
        self.easel, self.album, self._check = easel, album, check
        self.painted = 0

    def missing(self, orders: Sequence[Order]) -> int:
        """How many different pictures would have to be painted."""
        return len(self._missing([self.album.making(order) for order in orders], orders))

    def paint(self, orders: Sequence[Order], tell: Tell = lambda done, of: None) -> list[Path]:
        """The file of each order's picture, in their order. tell(done, of): different pictures; may raise to stop."""
        makings = [self.album.making(order) for order in orders]
        left = self._missing(makings, orders)
        of = len(set(makings))
        done = of - len(left)
        tell(done, of)
        wanted = list(left)
        for number, image in self.easel.paint([left[making] for making in wanted], lambda step, steps: self._look()):
            order = left[wanted[number]]
            named = ", ".join(f"{path.name}:{strength:g}" for path, strength in order.loras)
            self.album.keep(wanted[number], order, image, named)
            self.painted += 1
            done += 1
            tell(done, of)
        return [self.album.place(making) for making in makings]

    def _missing(self, makings: Sequence[str], orders: Sequence[Order]) -> dict[str, Order]:
        found: dict[str, Order] = {}
        for making, order in zip(makings, orders, strict=True):
            if making not in found and self.album.find(making) is None:
                found[making] = order
        return found

    def _look(self) -> None:
        self._check()
