"""What became of every key of a configuration that was read or written. Shared by the dialects.

mapped: it means the same here. approximated: the nearest there is, and how it differs. refused: nothing like it, and
why. idle: it has no effect on training in that tool as the file stands, or only concerns its own housekeeping.
assumed (reading): absent from the file, so the other tool's default, which differs from ours, is written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainpilot.config.layers import declaration, from_tables, nest
from trainpilot.config.validate import validate
from trainpilot.errors import PilotError, Problems

GROUPS = ("mapped", "approximated", "refused", "idle", "assumed")
_HEADINGS = {
    "mapped": "mapped",
    "approximated": "approximated",
    "refused": "refused",
    "idle": "without effect",
    "assumed": "absent, so the other tool's default",
}
SHOWN = 60  # characters of a value in a printed line


@dataclass(frozen=True)
class Item:
    """One key: its value, the settings (reading) or arguments (writing) it became, and the reason in words."""

    key: str
    value: Any
    became: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def text(self) -> str:
        """`key = value -> setting = value: reason`, on one line."""
        became = ", ".join(f"{path} = {shown(value)}" for path, value in self.became.items())
        words = f"{self.key} = {shown(self.value)}" + (f" -> {became}" if became else "")
        return f"{words}: {self.reason}" if self.reason else words


def shown(value: Any) -> str:
    """A value in one short line."""
    text = value if isinstance(value, str) and value and "\n" not in value else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 4]} ..."


@dataclass
class Account:
    """The lists; every key of the source is in exactly one of the first four."""

    mapped: list[Item] = field(default_factory=list)
    approximated: list[Item] = field(default_factory=list)
    refused: list[Item] = field(default_factory=list)
    idle: list[Item] = field(default_factory=list)
    assumed: list[Item] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in GROUPS}

    def keys(self) -> dict[str, str]:
        """Key -> the list it is in."""
        return {item.key: name for name in GROUPS for item in getattr(self, name)}

    def lists(self) -> dict[str, Any]:
        """The lists as JSON."""
        return {name: [asdict(item) for item in getattr(self, name)] for name in GROUPS}

    def account(self) -> str:
        """The lists for a terminal, with counts; what differs comes first."""
        lines = [", ".join(f"{len(getattr(self, name))} {_HEADINGS[name]}" for name in GROUPS)]
        for name in ("refused", "approximated", "assumed", "idle", "mapped"):
            items: Sequence[Item] = getattr(self, name)
            if items:
                lines += [f"{_HEADINGS[name]} ({len(items)})", *(f"  {item.text()}" for item in items)]
        return "\n".join(lines) + "\n"


@dataclass
class Reading(Account):
    """config: tables of our settings, to be merged as a layer. dialect: NAME of what was read."""

    config: dict[str, Any] = field(default_factory=dict)
    dialect: str = ""


@dataclass
class Writing(Account):
    """text: the file. beside: name -> text of further files it names. command: argv that trains with it, if any."""

    text: str = ""
    command: list[str] | None = None
    beside: dict[str, str] = field(default_factory=dict)


class Ledger:
    """Where a dialect books every key while it reads; `close` makes the Reading.

    Paths that begin with `datasets.` hold for every dataset that does not say otherwise itself.
    """

    def __init__(self, dialect: str) -> None:
        self.reading = Reading(dialect=dialect)
        self.values: dict[str, Any] = {}
        self.every: dict[str, Any] = {}
        self.datasets: list[dict[str, Any]] = []
        self.origin: dict[str, str] = {}
        self.problems: list[PilotError] = []

    def mapped(self, key: str, value: Any, became: Mapping[str, Any]) -> None:
        self.reading.mapped.append(Item(key, value, dict(became)))
        self._set(key, became)

    def approximated(self, key: str, value: Any, how: str, became: Mapping[str, Any] | None = None) -> None:
        self.reading.approximated.append(Item(key, value, dict(became or {}), how))
        self._set(key, became or {})

    def refused(self, key: str, value: Any, why: str) -> None:
        self.reading.refused.append(Item(key, value, {}, why))

    def idle(self, key: str, value: Any, why: str) -> None:
        self.reading.idle.append(Item(key, value, {}, why))

    def assumed(self, key: str, value: Any, became: Mapping[str, Any], why: str = "") -> None:
        """Write down a default of the other tool; it is listed where ours differs."""
        if any(_default(path) != setting for path, setting in became.items()):
            self.reading.assumed.append(Item(key, value, dict(became), why))
        self._set(f"{key}, absent", became)

    def wrong(self, key: str, value: Any, allowed: str, remedy: str = "Correct it.") -> None:
        """A value that cannot be meant; all of them are raised together by `close`."""
        self.problems.append(PilotError(key, shown(value), allowed, remedy))

    def _set(self, key: str, became: Mapping[str, Any]) -> None:
        for path, value in became.items():
            if path.startswith("datasets."):
                self.every[path.removeprefix("datasets.")] = value
            else:
                self.values[path] = value
            self.origin[path] = key

    def close(self) -> Reading:
        """The reading, its configuration checked against our limits. Raises Problems with everything wrong."""
        tables = nest({path: value for path, value in self.values.items() if value is not None})
        listed = [nest(_present({**self.every, **dataset})) for dataset in self.datasets]
        if listed:
            tables["datasets"] = listed
        layer = from_tables(self.reading.dialect, tables)
        sources = {path: self._source(path) for path in layer.values}
        for index, dataset in enumerate(layer.datasets or []):
            sources |= {f"datasets.{index}.{path}": self._source(f"datasets.{path}") for path in dataset}
        flat = nest(layer.values) | {"datasets": [nest(dataset) for dataset in layer.datasets or []]}
        _, wrong = validate(flat, sources)
        problems = [*self.problems, *layer.problems, *wrong]
        if problems:
            raise Problems(problems)
        self.reading.config = tables
        return self.reading

    def _source(self, path: str) -> str:
        return f"key {self.origin[path]}" if path in self.origin else self.reading.dialect


def _default(path: str) -> Any:
    info = declaration(path)
    return info.get_default(call_default_factory=True) if info is not None else None


def _present(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in flat.items() if value is not None}
