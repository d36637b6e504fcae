"""What a setting is, in words: its path, what it accepts, and what was probably meant by a misspelt one.

Used by the merge (errors, text to value) and by anything that prints settings. Everything is read from the schema.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from trainpilot.config.fields import Section
from trainpilot.config.schema import Dataset, RunConfig, Size

_YES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@cache
def settings(section: type[Section] = RunConfig) -> dict[str, FieldInfo]:
    """Dotted path -> declaration of every leaf; `datasets` stays one leaf (see `dataset_settings`)."""
    return dict(_leaves(section, ""))


@cache
def dataset_settings() -> dict[str, FieldInfo]:
    """Dotted path inside one dataset -> declaration."""
    return settings(Dataset)


def _leaves(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in section.model_fields.items():
        if name == "schema_version":
            continue
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


def sections(section: type[Section] = RunConfig) -> dict[str, type[Section]]:
    """Dotted path -> section class of every table below `section`."""
    found: dict[str, type[Section]] = {}
    for name, info in section.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            found[name] = inner
            found |= {f"{name}.{path}": cls for path, cls in sections(inner).items()}
    return found


def atoms(annotation: Any) -> tuple[set[Any], list[Any]]:
    """The plain types an annotation accepts (tuple for a size), and the values of its Literals."""
    kinds: set[Any] = set()
    values: list[Any] = []
    for part in get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,):
        part = get_args(part)[0] if get_origin(part) is Annotated else part
        if get_origin(part) is Literal:
            values += get_args(part)
        else:
            kinds.add(get_origin(part) or part)
    return kinds, values


def allowed(info: FieldInfo) -> str:
    """What a setting accepts, in words: kind, limits, unit."""
    kinds, values = atoms(info.annotation)
    words = [", ".join(map(str, values))] if values else []
    names: dict[Any, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        tuple: "[width, height]",
        list: "a list of texts",
        dict: "a table",
    }
    words += [text for kind, text in names.items() if kind in kinds]
    text = " or ".join(words)
    limits = [f"{phrase} {value:g}" for phrase, value in _limits(info)]
    patterns = [f"matching {item.pattern}" for item in info.metadata if getattr(item, "pattern", None)]
    unit = (info.json_schema_extra or {}).get("unit") if isinstance(info.json_schema_extra, dict) else None
    text = ", ".join([text, " and ".join(limits), *patterns]) if limits or patterns else text
    text = text.replace(", ,", ",")
    return f"{text} ({unit})" if unit else text


def _limits(info: FieldInfo) -> Iterator[tuple[str, float]]:
    for item in [*info.metadata, *_inner_metadata(info.annotation)]:
        for name, phrase in _LIMITS.items():
            value = getattr(item, name, None)
            if value is not None:
                yield phrase, value
        if getattr(item, "max_length", None) is not None:
            yield "letters at most", item.max_length
        if getattr(item, "min_length", None) is not None:
            yield "letters at least", item.min_length


def _inner_metadata(annotation: Any) -> list[Any]:
    """Limits that stand at the first number inside a type, as in `Annotated[int, Ge(1)] | tuple[...]`."""
    if get_origin(annotation) is Annotated:
        return [
            limit
            for item in get_args(annotation)[1:]
            for limit in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
    return next((found for part in get_args(annotation) if (found := _inner_metadata(part))), [])


def from_text(info: FieldInfo, text: str) -> Any:
    """A value written on the command line or in the environment, read by the setting's own type.

    What cannot be read stays text, so that validation reports it with the setting's limits. Sizes may be
    written 512x768; `none` empties a setting that may be empty.
    """
    kinds, values = atoms(info.annotation)
    plain = text.strip()
    if type(None) in kinds and plain.lower() in ("none", "null", ""):
        return None
    if bool in kinds and plain.lower() in _YES:
        return _YES[plain.lower()]
    size = re.fullmatch(r"(\d+)[x×,](\d+)", plain)
    if tuple in kinds and size:
        return [int(size[1]), int(size[2])]
    only_text = not kinds - {str, type(None)} and all(isinstance(value, str) for value in values)
    if only_text:
        quoted = len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'"
        return plain[1:-1] if quoted else text
    try:
        document = tomllib.loads(f"value = {plain}")
    except tomllib.TOMLDecodeError:
        return [text] if list in kinds and str not in kinds else text
    return document["value"] if len(document) == 1 else text


def from_words(info: FieldInfo, value: Any) -> Any:
    """A size that a file writes as text ("512x768"); anything else is returned as it is."""
    kinds, _ = atoms(info.annotation)
    return from_text(info, value) if tuple in kinds and isinstance(value, str) else value


def closest(given: str, known: Iterable[str]) -> list[str]:
    """Up to three likely meanings of a misspelt name, best first."""
    return difflib.get_close_matches(given.lower(), list(known), n=3, cutoff=0.6)


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """A remedy: the likely meaning, or `otherwise` where nothing is close."""
    found = closest(given, known)
    return f"Did you mean {' or '.join(found)}?" if found else otherwise


def unknown_key(prefix: str, key: str, siblings: Iterable[str]) -> str:
    """Remedy for an unknown key in table `prefix`: a sibling, else a setting of the same name elsewhere."""
    everywhere = [*settings(), *(f"datasets.{path}" for path in dataset_settings())]
    joined = {path.replace(".", "_"): path for path in everywhere}
    near = closest(key, siblings)
    if near and key not in joined:
        return f"Did you mean {' or '.join(prefix + name for name in near)}?"
    elsewhere = [path for path in everywhere if path.rsplit(".", 1)[-1] == key]
    elsewhere += [joined[name] for name in closest(key, joined)]
    if elsewhere:
        return f"Did you mean {' or '.join(dict.fromkeys(elsewhere[:3]))}?"
    return "Remove it, or see `trainpilot train --help` and the settings reference for the names."


def both(size: int | Size) -> Size:
    """A training size as (width, height); one number means a square."""
    return (size, size) if isinstance(size, int) else size
