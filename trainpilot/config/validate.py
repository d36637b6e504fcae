"""From nested tables to a RunConfig, every problem found in one pass. Used by merge and document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trainpilot.config.describe import allowed, atoms, closest
from trainpilot.config.layers import declaration
from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError


def validate(tables: Mapping[str, Any], sources: Mapping[str, str]) -> tuple[RunConfig, list[PilotError]]:
    """The configuration, with defaults in the place of values that are wrong, and a problem for each of those."""
    remaining: dict[str, Any] = _copy(tables)
    problems: dict[str, PilotError] = {}
    for path, value in _booleans(remaining):
        problems[path] = _problem(path, value, sources)
        _remove(remaining, path)
    while True:
        try:
            return RunConfig.model_validate(remaining), list(problems.values())
        except ValidationError as error:
            found = {_setting(item["loc"]): item for item in error.errors()}
            for path, item in found.items():
                given = _get(remaining, path)
                problems[path] = _problem(path, item["input"] if given is None else given, sources, item["msg"])
                if not _remove(remaining, path):
                    raise


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _problem(path: str, value: object, sources: Mapping[str, str], message: str = "") -> PilotError:
    info = declaration(path)
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    source = sources.get(path, "default")
    if info is None:
        return PilotError(path, f"{shown} (from {source})", message or "nothing", "Correct or remove it.")
    _, values = atoms(info.annotation)
    near = closest(str(value), [str(item) for item in values])
    remedy = f"Did you mean {near[0]}?" if near else "Choose an allowed value."
    return PilotError(path, f"{shown} (from {source})", allowed(info), remedy)


def _booleans(tables: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Settings given as true or false that are no switches; pydantic would read true as the number 1."""
    from trainpilot.config.layers import flatten

    found: list[tuple[str, object]] = []
    for path, value in flatten(tables):
        if path == "datasets" and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    found += [(f"datasets.{index}.{inner}", leaf) for inner, leaf in flatten(item)]
        else:
            found.append((path, value))
    return [(path, value) for path, value in found if isinstance(value, bool) and not _takes_bool(path)]


def _takes_bool(path: str) -> bool:
    info = declaration(path)
    return info is None or bool in atoms(info.annotation)[0]


def _setting(location: tuple[int | str, ...]) -> str:
    """The setting an error is about: pydantic's location without the names of a union's members."""
    path = ".".join(map(str, location))
    while declaration(path) is None and "." in path:
        path = path.rpartition(".")[0]
    return path


def _get(tables: Any, path: str) -> Any:
    for key in path.split("."):
        try:
            tables = tables[int(key)] if isinstance(tables, list) else tables[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return tables


def _remove(tables: Any, path: str) -> bool:
    *parents, key = path.split(".")
    holder = _get(tables, ".".join(parents)) if parents else tables
    return isinstance(holder, dict) and holder.pop(key, self := object()) is not self
