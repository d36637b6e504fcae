"""What a check says. Used by every file of `checks/`, gathered by `report.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Place:
    """One file, relative to the dataset, and what is the matter with it."""

    file: str
    detail: str = ""


@dataclass(frozen=True)
class Fix:
    """What helps. kind: of `trainpilot dataset fix`, "" where a person must act; options: of that fix; command: another
    sub-command of `trainpilot dataset`."""

    text: str
    kind: str = ""
    options: Mapping[str, str | bool] = field(default_factory=dict)
    command: str = ""


@dataclass
class Finding:
    """One thing a person should know.

    title: one sentence; level: error (cannot be trained as it is), warning (hurts), note (worth knowing); of: how many
    pictures were looked at, 0 where it is about the dataset as a whole; groups: files that belong together.
    """

    title: str
    level: Level
    where: list[Place] = field(default_factory=list)
    of: int = 0
    fix: Fix | None = None
    groups: list[list[str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Part of the dataset that it is about: 1 for the dataset as a whole; a note costs nothing."""
        if self.level == "note":
            return 0.0
        return min(1.0, len(self.where) / self.of) if self.of else 1.0


def about(
    where: Iterable[tuple[str, str]], of: int, one: str, many: str, level: Level = "warning", fix: Fix | None = None
) -> Iterable[Finding]:
    """A finding about those files, none where there are none. one, many: the sentence, {} is their number."""
    places = [Place(file, detail) for file, detail in where]
    if places:
        yield Finding((one if len(places) == 1 else many).format(len(places)), level, places, of, fix)


def counted(number: int, one: str, many: str = "") -> str:
    """1 picture, 2 pictures."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + rest
