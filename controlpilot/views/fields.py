"""The form of a run, generated from the configuration's schema: every setting with its limits, unit and help.

Used by the Train page and by the API that describes the settings. A value in a form is text as `--set` reads it, so
what the wizard keeps, what the command line says and what a file holds are read by the same function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainpilot.config.describe import allowed, atoms, dataset_settings, settings
from trainpilot.config.schema import RunConfig

Kind = Literal["switch", "choice", "whole", "number", "text", "lines", "table"]
# Chosen by a step of their own, never typed as a setting.
CHOSEN = frozenset({"profile", "run.name", "model.base", "datasets"})


class Field(BaseModel):
    """One setting. path: dotted; name: its last part; default: as `--set` would write it, "none" where empty."""

    path: str
    section: str
    name: str
    help: str
    kind: Kind
    values: list[str] = []
    allowed: str
    unit: str = ""
    default: str
    low: float | None = None
    high: float | None = None
    letters: int | None = None


class Group(BaseModel):
    """One section of the configuration."""

    name: str
    label: str
    fields: list[Field]


def shown(value: Any) -> str:
    """A value as a person writes it in a form or after `--set section.key=`; `none` is nothing."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, (list, tuple)):
        numbers = len(value) == 2 and all(isinstance(side, int) for side in value)
        return f"{value[0]}x{value[1]}" if numbers else json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {json.dumps(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value)


def _kind(info: FieldInfo) -> Kind:
    kinds, values = atoms(info.annotation)
    kinds = kinds - {type(None)}
    if values:
        return "choice"
    for kind, name in ((bool, "switch"), (dict, "table")):
        if kind in kinds:
            return name  # type: ignore[return-value]
    if kinds == {list}:
        return "lines"
    if kinds == {int}:
        return "whole"
    return "number" if kinds <= {int, float} else "text"


def _field(path: str, info: FieldInfo) -> Field:
    section, _, name = path.rpartition(".")
    kind = _kind(info)
    _, values = atoms(info.annotation)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    limits: dict[str, Any] = {}
    for item in info.metadata:
        for key, into in (("ge", "low"), ("gt", "low"), ("le", "high"), ("lt", "high"), ("max_length", "letters")):
            if getattr(item, key, None) is not None:
                limits[into] = getattr(item, key)
    return Field(
        path=path,
        section=section,
        name=name,
        help=info.description or "",
        kind=kind,
        values=[shown(value) for value in values],
        allowed=allowed(info),
        unit=str(extra.get("unit", "")),
        default=shown(info.get_default(call_default_factory=True)),
        **limits,
    )


@cache
def groups() -> tuple[Group, ...]:
    """Every setting of a run by section, in the schema's order; those of a dataset are in `dataset_fields`."""
    found: dict[str, list[Field]] = {}
    for path, info in settings().items():
        if path not in CHOSEN:
            found.setdefault(path.partition(".")[0], []).append(_field(path, info))
    labels = {name: info.description or name for name, info in RunConfig.model_fields.items()}
    return tuple(Group(name=name, label=labels[name], fields=fields) for name, fields in found.items())


@cache
def dataset_fields() -> tuple[Field, ...]:
    """The settings of one dataset, but its path; a form puts `datasets.N.` before each path."""
    return tuple(_field(path, info) for path, info in dataset_settings().items() if path != "path")


def field_of(path: str) -> Field | None:
    """The declaration of `network.rank`, `datasets.flip` or `datasets.0.flip`; None where there is no such setting."""
    head, _, rest = path.partition(".")
    if head == "datasets" and rest:
        number, _, inner = rest.partition(".")
        wanted = inner if number.isdigit() else rest
        return next((one for one in dataset_fields() if one.path == wanted), None)
    return next((one for group in groups() for one in group.fields if one.path == path), None)


def from_form(field: Field | None, text: str) -> str | None:
    """What a person typed, as `--set` reads it; None where the field is left to what decides it otherwise."""
    if field is not None and field.kind == "lines":
        lines = [line.strip() for line in text.replace("\r", "").split("\n") if line.strip()]
        if not lines or (len(lines) == 1 and lines[0].startswith("[")):
            return lines[0] if lines else None
        return json.dumps(lines, ensure_ascii=False)
    plain = text.strip()
    return plain or None


def to_form(field: Field, text: str) -> str:
    """The text of `from_form` as a person edits it: a list has a line for each entry."""
    if field.kind != "lines" or not text.startswith("["):
        return text
    try:
        lines = json.loads(text)
    except ValueError:
        return text  # not JSON but TOML, or wrong: shown as it was written
    return "\n".join(map(str, lines)) if isinstance(lines, list) else text


def current(config: Mapping[str, Any], path: str) -> str:
    """The value at a dotted path of `RunConfig.model_dump()`, as `shown`; "" where there is none."""
    value: Any = config
    for key in path.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return ""
    return shown(value)
