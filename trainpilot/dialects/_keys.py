"""Key tables: what each key of another tool is, and what becomes of it here. Shared by the dialects.

A table is a TOML file beside its dialect; one line a key:
    network_dim = { kind = "int", default = 4, to = "network.rank" }
`to`: the setting that means the same; `way` names the conversion, where the values are written differently. `how`:
approximated (with or without `to`), and how it differs. `no`: refused, and why; at its default it asks for nothing.
`idle`: why it has no part in the result. `by`: read and written in code, together with other keys. `default` is the
other tool's; without one the key is usually absent. `verdict` names what a `by` key becomes in a file that sets it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainpilot.config.describe import closest
from trainpilot.dialects._account import Ledger

_TRUE = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "word": "a word, or true or false",
    "list": "a list",
    "size": "a size such as 1024 or 1024,768",
    "table": "a table",
    "any": "anything",
}
_NO_DEFAULT: Any = None


@dataclass(frozen=True)
class Key:
    """One key of another tool; the attributes are the table's columns. secret: its value is never shown."""

    name: str
    kind: str = "str"
    default: Any = _NO_DEFAULT
    to: str = ""
    way: str = ""
    how: str = ""
    no: str = ""
    idle: str = ""
    by: str = ""
    verdict: str = ""
    only: str = ""  # kept by the dialect: the model family or adapter type that alone reads this key
    argument: str = ""  # kept by the dialect: the name behind a form's field
    secret: bool = False

    @property
    def fate(self) -> str:
        """The list this key falls into when a file sets it to something of its own."""
        if self.verdict:
            return self.verdict
        return "refused" if self.no else "approximated" if self.how else "idle" if self.idle else "mapped"

    def asks_nothing(self, value: Any) -> bool:
        """Whether a value leaves what the key stands for off, or as it is without it."""
        if value in (None, "", False) or value == [] or value == {}:
            return True
        return value == self.default if self.default is not None else value == 0


def table(path: Path) -> dict[str, Key]:
    """The key table of a file; dotted names come from nested tables."""
    found: dict[str, Key] = {}
    _collect(tomllib.loads(path.read_text(encoding="utf-8")), "", found)
    return found


def _collect(tables: Mapping[str, Any], prefix: str, into: dict[str, Key]) -> None:
    for name, row in tables.items():
        if "kind" in row and isinstance(row["kind"], str):
            into[prefix + name] = Key(prefix + name, **row)
        else:
            _collect(row, f"{prefix}{name}.", into)


class WrongKindError(ValueError):
    """A value that is not of its key's kind."""


def coerce(key: Key, value: Any) -> Any:
    """A value as its key's kind, texts that hold numbers included. "" of a number and null are None (absent)."""
    if key.kind == "any":
        return value
    if value is None or (value == "" and key.kind not in ("str", "word", "list")):
        return None
    if key.kind in ("str", "word"):
        if isinstance(value, (dict, list)) or (isinstance(value, bool) and key.kind == "str"):
            raise WrongKindError
        return str(value)
    if key.kind == "bool":
        return _bool(value)
    if key.kind == "list":
        return _list(value)
    if key.kind == "size":
        return _size(value)
    if key.kind == "table":
        if not isinstance(value, dict):
            raise WrongKindError
        return value
    return _number(value, whole=key.kind == "int")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)) and str(value).strip().lower() in _TRUE:
        return _TRUE[str(value).strip().lower()]
    raise WrongKindError


def _number(value: Any, *, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise WrongKindError
    try:
        number = float(value)
        exact = int(value) if isinstance(value, int) or (isinstance(value, str) and whole and _plain(value)) else None
    except (ValueError, OverflowError) as error:
        raise WrongKindError from error
    if not math.isfinite(number) or (whole and number != int(number)):
        raise WrongKindError
    if whole:
        return exact if exact is not None else int(number)
    return number


def _plain(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit() and len(text) < 40


def _list(value: Any) -> list[Any]:
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list):
        items = [items]
    if any(isinstance(item, (dict, list)) for item in items):
        raise WrongKindError
    return list(items)


def _size(value: Any) -> int | list[int]:
    """1024, "1024", "1024,768", "1024x768" or [1024, 768]; equal sides become one number."""
    parts = value if isinstance(value, list) else str(value).lower().replace("x", ",").split(",")
    if isinstance(value, (bool, dict)) or not 1 <= len(parts) <= 2:
        raise WrongKindError
    sides = [int(_number(part, whole=True)) for part in parts]
    return sides[0] if len(set(sides)) == 1 else sides


@dataclass(frozen=True)
class Way:
    """A conversion between another tool's value and ours; None from either side means "leave it out"."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def choices(pairs: Mapping[Any, Any]) -> Way:
    """A conversion by a table of theirs -> ours; the first of several theirs is written. Others are None."""
    back: dict[Any, Any] = {}
    for theirs, ours in pairs.items():
        back.setdefault(ours, theirs)
    return Way(pairs.get, back.get)


def same(value: Any) -> Any:
    return value


IDENTITY = Way(same, same)
WAYS: dict[str, Way] = {
    "": IDENTITY,
    "precision": choices({"no": "fp32", "fp16": "fp16", "bf16": "bf16", "float": "fp32", "fp32": "fp32"}),
    # YAML reads a bare `no` as false.
    "precision_word": choices({"no": "fp32", False: "fp32", "fp16": "fp16", "bf16": "bf16"}),
    "save_precision": choices({"float": "fp32", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"}),
    # A limit that 0 switches off there and that is left empty here.
    "none_is_0": Way(lambda value: value or None, lambda value: value or None),
    "empty_is_none": Way(lambda value: value or None, lambda value: value or None),
    # sd-scripts divides by these, so 0 is left out.
    "count": Way(same, lambda value: value or None),
    "at_least_1": Way(lambda value: max(1, value), same),
    "dtype": choices(
        {"fp16": "fp16", "float16": "fp16", "bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32"}
    ),
    "onetrainer_dtype": choices({"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "fp32", "TFLOAT_32": "fp32"}),
    "thousandths": Way(lambda value: round(value * 1000), lambda value: value / 1000),
    "save_format": choices({"diffusers": True, "safetensors": False}),
    "v_pred": choices({True: "v_prediction", False: "epsilon"}),
    "extension": Way(lambda value: value if value.startswith(".") else f".{value}", same),
    "not": Way(lambda value: not value, lambda value: not value),
}


def take(keys: Mapping[str, Key], given: Mapping[str, Any], ledger: Ledger, prefix: str = "") -> dict[str, Any]:
    """The given values by key, each as its kind; unknown keys and wrong values are booked in the ledger.

    prefix: put before names in messages. A null or empty number is left out, as absent.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        key = keys.get(name)
        if key is None:
            near = closest(name, keys)
            known = (
                f"did you mean {' or '.join(prefix + other for other in near)}?" if near else "no known key is like it"
            )
            ledger.refused(prefix + name, value, f"unknown; {known}")
            continue
        try:
            typed = coerce(key, value)
        except WrongKindError:
            ledger.wrong(prefix + name, "a value that is not shown" if key.secret else value, KINDS[key.kind])
            continue
        if typed is None:
            ledger.idle(prefix + name, value, "empty, as if it were absent")
        else:
            found[name] = typed
    return found


def book(key: Key, value: Any, ledger: Ledger, name: str = "") -> None:
    """Book one given key that its table line alone decides. name: how the file calls it."""
    name = name or key.name
    shown = "(not shown)" if key.secret and value else value
    became = _became(key, value)
    if key.no:
        if key.asks_nothing(value):
            ledger.idle(name, shown, "asks for nothing")
        else:
            ledger.refused(name, shown, key.no)
    elif key.idle:
        ledger.idle(name, shown, key.idle)
    elif key.to and became is None:
        ledger.wrong(name, value, _allowed(key))
    elif key.how and not key.to and key.asks_nothing(value):
        ledger.idle(name, shown, "asks for nothing")
    elif key.how:
        ledger.approximated(name, shown, key.how, became)
    else:
        ledger.mapped(name, shown, became or {})


def assume(key: Key, ledger: Ledger, default: Any = None) -> None:
    """Book the other tool's default of a key that is absent, where it has one."""
    value = key.default if default is None else default
    if value is None or not key.to or key.no:
        return
    became = _became(key, value)
    if became:
        ledger.assumed(key.name, value, became)


def _became(key: Key, value: Any) -> dict[str, Any] | None:
    """{setting: value}, or None where the conversion knows no such value."""
    if not key.to:
        return {}
    ours = WAYS[key.way].read(value)
    if ours is None and WAYS[key.way] is not WAYS["none_is_0"] and WAYS[key.way] is not WAYS["empty_is_none"]:
        return None
    return {key.to: ours}


def _allowed(key: Key) -> str:
    way = WAYS[key.way]
    table = getattr(way.read, "__self__", None)
    return ", ".join(map(str, table)) if isinstance(table, dict) else KINDS[key.kind]
