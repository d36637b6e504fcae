"""Texts of other people's files as plain trees, with bounds on size, depth and number. Shared by the dialects.

JSON, YAML and TOML parsers accept more than a configuration ever needs: tags that build objects, aliases that grow
without end, nesting that exhausts the stack, keys given twice. Here each of these is a PilotError.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Hashable
from typing import Any

import yaml

from trainpilot.errors import PilotError

LARGEST = 1 << 20  # bytes of a file
DEEPEST = 12  # levels of nesting
MOST = 20_000  # values, aliases expanded
MOST_ALIASES = 50
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.S)


def check_size(text: str, where: str) -> None:
    """Refuse a text that is no configuration file by its size."""
    if len(text) > LARGEST:
        raise PilotError(where, f"{len(text):,} characters", f"at most {LARGEST:,}", "Is this a configuration file?")


def from_json(text: str, where: str = "JSON", *, comments: bool = False) -> Any:
    """The tree of a JSON text. comments: // and /* */ are allowed, as in JSONC."""
    check_size(text, where)
    plain = text.removeprefix("\ufeff")
    if comments:
        plain = _COMMENT.sub(lambda match: match[1] or "", plain)
    try:
        tree = json.loads(plain, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise PilotError(where, f"not JSON: {error}", "a JSON object", "Correct the place it names.") from error
    return checked(tree, where)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(twice)} given more than once")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON has")


def from_toml(text: str, where: str = "TOML") -> dict[str, Any]:
    """The tables of a TOML text."""
    check_size(text, where)
    try:
        tree = tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise PilotError(where, f"not TOML: {error}", "TOML", "Correct the place it names.") from error
    return dict(checked(tree, where))


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the plain scalars of YAML 1.2: no dates, no octal or sexagesimal numbers.

    1e-4 is a number, as every trainer means it; `no` and `off` stay booleans, as PyYAML reads them.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - replaces the class's own table, as PyYAML wants it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given more than once")
        return super().construct_mapping(node, deep=deep)


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$", list("tTfFyYnNoO")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def from_yaml(text: str, where: str = "YAML") -> Any:
    """The tree of a YAML text (or of JSON, which YAML includes). Tags and merge keys are refused."""
    check_size(text, where)
    try:
        _look_at_events(text, where)
        tree = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise _too_deep(where) from error
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        # PyYAML lets some malformed texts out as Python's own errors.
        first = " ".join(str(error).split())[:300]
        raise PilotError(where, f"not YAML: {first}", "YAML", "Correct the place it names.") from error
    return checked(tree, where)


def _look_at_events(text: str, where: str) -> None:
    """Refuse what is dangerous before anything is built from it."""
    depth = aliases = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise PilotError(where, "several documents (---)", "one document", "Split the file.")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        aliases += isinstance(event, yaml.AliasEvent)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise PilotError(f"{where}, line {event.start_mark.line + 1}", f"the tag {tag}", "no tags", "Remove it.")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<":
            line = event.start_mark.line + 1
            raise PilotError(f"{where}, line {line}", "a merge key (<<)", "no merge keys", "Write the keys out.")
        if depth > DEEPEST:
            raise _too_deep(where)
        if aliases > MOST_ALIASES or count > 2 * MOST:
            given = f"more than {MOST_ALIASES} aliases" if aliases > MOST_ALIASES else f"more than {MOST} values"
            raise PilotError(where, given, f"{MOST_ALIASES} aliases, {MOST} values", "Is this a configuration file?")


def checked(tree: Any, where: str) -> Any:
    """The tree itself, within the bounds on depth and number, its texts without halves of characters."""
    left = [MOST]

    def walk(value: Any, depth: int) -> None:
        left[0] -= 1
        if depth > DEEPEST:
            raise _too_deep(where)
        if left[0] < 0:
            raise PilotError(where, f"more than {MOST} values", f"at most {MOST}", "Is this a configuration file?")
        if isinstance(value, str):
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise PilotError(where, repr(value[:40]), "Unicode text", "Remove the lone surrogate.") from error
        elif isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise PilotError(where, f"the key {key!r}", "keys that are text", "Quote it, or correct it.")
                walk(key, depth)
                walk(inner, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, depth + 1)

    walk(tree, 0)
    return tree


def _too_deep(where: str) -> PilotError:
    return PilotError(where, "nested too deeply", f"at most {DEEPEST} levels", "Is this a configuration file?")


_EXPORT = re.compile(r"^\s*export\s+([A-Za-z_]\w*)=(.*)$")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def words(text: str, where: str = "command") -> list[str]:
    """The words of a command line, as a shell splits it; lines ended by a backslash are joined, comments dropped.

    `export NAME=value` lines before it fill in $NAME. Nothing else is expanded, and nothing is run: a word with any
    other $, or a backquote, is refused, since its meaning is elsewhere.
    """
    check_size(text, where)
    variables: dict[str, str] = {}
    kept = []
    try:
        for line in text.replace("\r\n", "\n").replace("\\\n", " ").splitlines():
            match = _EXPORT.match(line)
            if match:
                variables[match[1]] = " ".join(shlex.split(match[2], comments=True))
            else:
                kept.append(line)
        found = shlex.split("\n".join(kept), comments=True)
    except ValueError as error:
        raise PilotError(where, f"cannot be split: {error}", "a command line", "Close its quotes.") from error
    found = [_VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), word) for word in found]
    for word in checked(found, where):
        if "$" in word or "`" in word:
            raise PilotError(where, word, "plain values", "Write the variable's value in its place.")
    return found
