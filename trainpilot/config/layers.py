"""One source of settings (family, profile, file, environment, command line) as a flat layer, and how layers stack.

A layer knows its name, so every value of the merged configuration can say where it came from. Used by the merge.

Datasets: the highest layer that lists datasets decides which there are. Any layer may also say a setting for every
dataset (a table `[datasets]`, `--set datasets.strict=true`) or for one (`datasets.0.repeats=3`); a lower layer's
fills what the dataset does not state, a higher layer's wins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainpilot.config.describe import (
    allowed,
    dataset_settings,
    from_text,
    from_words,
    sections,
    settings,
    unknown_key,
)
from trainpilot.config.schema import Dataset
from trainpilot.errors import PilotError

# PILOT_SECTION__KEY are settings; PILOT_WORKSPACE, PILOT_CACHE and the like have no double underscore.
ENVIRONMENT_PREFIX = "PILOT_"


@dataclass
class Layer:
    """Settings of one source: `values` by dotted path, and what it says about datasets."""

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    datasets: list[dict[str, Any]] | None = None
    every: dict[str, Any] = field(default_factory=dict)
    single: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[PilotError] = field(default_factory=list)

    def put(self, path: str, value: Any) -> None:
        """Store one setting; an unknown path becomes a problem that names what was probably meant."""
        head, _, rest = path.partition(".")
        if head == "datasets" and rest:
            self._put_dataset(path, rest, value)
            return
        known = settings()
        if path == "datasets":
            self._put_datasets(value)
        elif path in known:
            self.values[path] = from_words(known[path], value)
        else:
            self._put_inside_table(path, value, known)

    def _put_inside_table(self, path: str, value: Any, known: Mapping[str, Any]) -> None:
        parent, _, key = path.rpartition(".")
        if parent in known and known[parent].annotation is not None and _is_table(known[parent].annotation):
            self.values.setdefault(parent, {})[key] = value
        elif path in sections():
            self._refuse(path, value, "a table of settings", f"Write it as [{path}].")
        else:
            self._unknown(path, known)

    def _put_datasets(self, value: Any) -> None:
        if isinstance(value, Mapping):
            for path, leaf in flatten(value):
                self._put_dataset(f"datasets.{path}", path, leaf)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            self.datasets = []
            for index, item in enumerate(value):
                flat: dict[str, Any] = {}
                if isinstance(item, Mapping):
                    for path, leaf in flatten(item):
                        self._accept(flat, f"datasets.{index}.{path}", path, leaf)
                else:
                    self._refuse(f"datasets.{index}", item, "a table with a path", "Write it as [[datasets]].")
                self.datasets.append(flat)
        else:
            self._refuse("datasets", value, "a list of tables", "Write one [[datasets]] for each folder.")

    def _put_dataset(self, path: str, rest: str, value: Any) -> None:
        number, _, inner = rest.partition(".")
        if number.isdigit():
            self._accept(self.single.setdefault(int(number), {}), path, inner, value)
        else:
            self._accept(self.every, path, rest, value)

    def _accept(self, into: dict[str, Any], path: str, inner: str, value: Any) -> None:
        known = dataset_settings()
        if inner in known:
            into[inner] = from_words(known[inner], value)
        else:
            self._unknown(path, known, inner)

    def _unknown(self, path: str, known: Mapping[str, Any], inner: str | None = None) -> None:
        inside = path if inner is None else inner
        table, _, key = inside.rpartition(".")
        prefix = f"{table}." if table else ""
        tables = sections() if inner is None else sections(Dataset)
        if table and table not in tables and not any(name.startswith(prefix) for name in known):
            # The table itself is misspelt: say that, rather than listing every setting there is.
            key, prefix = table, ""
            siblings = [name for name in tables if "." not in name]
        else:
            siblings = [name.removeprefix(prefix).partition(".")[0] for name in known if name.startswith(prefix)]
        siblings = list(dict.fromkeys(siblings))
        remedy = unknown_key(prefix if inner is None else f"{path.removesuffix(inside)}{prefix}", key, siblings)
        self._refuse(path, "an unknown setting", ", ".join(siblings), remedy)

    def _refuse(self, path: str, given: object, accepted: str, remedy: str) -> None:
        self.problems.append(PilotError(path, f"{given} (from {self.source})", accepted, remedy))


def _is_table(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def flatten(tables: Mapping[str, Any], prefix: str = "", whole: Collection[str] = ()) -> Iterable[tuple[str, Any]]:
    """(dotted path, value) of every leaf of nested tables; an empty table has none.

    whole: paths whose tables are values, not descended into (their keys may hold dots, as patterns do).
    """
    for key, value in tables.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in whole:
            yield from flatten(value, f"{prefix}{key}.", whole)
        else:
            yield f"{prefix}{key}", value


def from_tables(source: str, tables: Mapping[str, Any]) -> Layer:
    """A layer of a profile, a file or a family's defaults."""
    layer = Layer(source)
    known = settings()
    for key, value in tables.items():
        if key == "datasets" or not isinstance(value, Mapping):
            layer.put(key, value)
            continue
        # A table setting (network.block_ranks) is one value, also where it is empty.
        whole = [path for path in known if _is_table(known[path].annotation)]
        for path, leaf in flatten(value, f"{key}.", whole):
            layer.put(path, leaf)
    return layer


def from_environment(environment: Mapping[str, str]) -> list[Layer]:
    """One layer for each PILOT_SECTION__KEY variable, in the order of their names."""
    layers = []
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            layers.append(_from_text(f"environment {name}", path, environment[name]))
    return layers


def from_overrides(overrides: Sequence[str]) -> list[Layer]:
    """One layer for each `section.key=value` of --set, in the order given."""
    layers = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if equals:
            layers.append(_from_text("--set", path.strip(), value))
        else:
            layer = Layer("--set")
            layer._refuse("--set", text, "section.key=value", f"Write --set {text}=VALUE.")
            layers.append(layer)
    return layers


def _from_text(source: str, path: str, text: str) -> Layer:
    layer = Layer(source)
    # optimizer.args.min_8bit_size=16 is a key of the table optimizer.args: a number, as in a file.
    info = declaration(path) or declaration(path.rpartition(".")[0])
    layer.put(path, from_text(info, text) if info is not None else text)
    return layer


def declaration(path: str) -> Any:
    """The declaration of a setting by dotted path, with or without an index of a dataset; None if there is none."""
    head, _, rest = path.partition(".")
    if head == "datasets" and rest:
        number, _, inner = rest.partition(".")
        return dataset_settings().get(inner if number.isdigit() else rest)
    known = settings()
    return known.get(path)


def stack(layers: Sequence[Layer]) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, str], list[PilotError]]:
    """Layers, lowest first -> (values, datasets, sources, problems). Tables inside a setting merge key by key."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.values.items():
            old = values.get(path)
            values[path] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) and value else value
            sources[path] = layer.source
    datasets, problems = _stack_datasets(layers, sources)
    return values, datasets, sources, [problem for layer in layers for problem in layer.problems] + problems


def _stack_datasets(layers: Sequence[Layer], sources: dict[str, str]) -> tuple[list[dict[str, Any]], list[PilotError]]:
    deciding = max((n for n, layer in enumerate(layers) if layer.datasets is not None), default=-1)
    listed = layers[deciding].datasets or [] if deciding >= 0 else []
    datasets = [dict(item) for item in listed]
    origin = layers[deciding].source if deciding >= 0 else ""
    for index, dataset in enumerate(datasets):
        sources.update({f"datasets.{index}.{path}": origin for path in dataset})
    problems = []
    for order, layer in enumerate(layers):
        for index, dataset in enumerate(datasets):
            for path, value in {**layer.every, **layer.single.get(index, {})}.items():
                if order > deciding or path not in listed[index]:
                    dataset[path] = value
                    sources[f"datasets.{index}.{path}"] = layer.source
        for index in layer.single:
            if index >= len(datasets):
                count = f"datasets.0 to datasets.{len(datasets) - 1}" if datasets else "no dataset is given"
                problems.append(
                    PilotError(
                        f"datasets.{index}", f"there is none (from {layer.source})", count, "Count datasets from 0."
                    )
                )
    return datasets, problems


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths -> nested tables."""
    tables: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, key = path.split(".")
        inner = tables
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = value
    return tables


def describe(path: str) -> str:
    """What the setting at a path accepts."""
    info = declaration(path)
    return allowed(info) if info is not None else "no such setting"
