"""A configuration that is being written for another trainer: values collected, every setting booked. For dialects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainpilot.config.describe import dataset_settings, settings
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Item, Writing
from trainpilot.errors import PilotError


class Draft:
    """Values by the other trainer's names, and what becomes of each setting of ours.

    families: of ours -> their name; another family, or auto, is a PilotError.
    """

    def __init__(self, config: RunConfig, families: Mapping[str, str]) -> None:
        self.config = config
        self.values: dict[str, Any] = {}
        self.writing = Writing()
        self.done: set[str] = set()
        self.family = config.model.family
        if self.family not in families:
            remedy = "Export a run, or set model.family; `trainpilot export` finds it out from the base model."
            raise PilotError("model.family", self.family, ", ".join(families), remedy)

    def get(self, path: str) -> Any:
        """A setting by its dotted path."""
        section: Any = self.config
        for key in path.split("."):
            section = getattr(section, key)
        return section

    def put(self, path: str, how: str = "", /, **values: Any) -> None:
        """Write values for one setting; None leaves one out. how: why it does not read back the same."""
        present = {name: value for name, value in values.items() if value is not None}
        self.values |= present
        self._book(path, how, present)

    def _book(self, path: str, how: str, present: Mapping[str, Any]) -> None:
        self.done.add(path)
        item = Item(path, self.get(path), dict(present), how)
        (self.writing.approximated if how else self.writing.mapped).append(item)

    def refuse(self, path: str, why: str) -> None:
        self.done.add(path)
        self.writing.refused.append(Item(path, self.get(path), {}, why))

    def idle(self, path: str, why: str) -> None:
        self.done.add(path)
        self.writing.idle.append(Item(path, self.get(path), {}, why))

    def left(self, why: str, reasons: Mapping[str, str]) -> None:
        """Refuse every setting that nothing has written and that says something of its own."""
        for path, info in settings().items():
            if path in self.done or path in ("datasets", "profile"):
                continue
            if self.get(path) != info.get_default(call_default_factory=True):
                self.refuse(path, reasons.get(path, why))


def book_datasets(out: Draft, index: int, done: Mapping[str, str], why: str) -> None:
    """Book one dataset's settings: those in `done` (path -> how it differs, or ""), and what else it says."""
    for path, info in dataset_settings().items():
        value: Any = out.config.datasets[index]
        for key in path.split("."):
            value = getattr(value, key)
        name = f"datasets.{index}.{path}"
        if path in done:
            target = out.writing.approximated if done[path] else out.writing.mapped
            target.append(Item(name, value, {}, done[path]))
        elif value != info.get_default(call_default_factory=True):
            out.writing.refused.append(Item(name, value, {}, why))
