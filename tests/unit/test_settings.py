"""Every setting of a run is declared whole: type, default, limits and a line of help."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainpilot.config.schema import RunConfig


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted path, declaration) of every setting; sections themselves included."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind, f"{prefix}{name}.")


FIELDS = dict(fields(RunConfig))
BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)


def limited(kind: Any, limits: Any = ()) -> bool:
    """Whether every plain number inside a type, however deep, has a limit."""
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        found = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return limited(inner, found)
    if get_args(kind):
        return all(limited(part, limits) for part in get_args(kind) if part is not NoneType)
    return kind not in (int, float) or any(isinstance(limit, BOUNDS) for limit in limits)


def test_the_defaults_are_valid() -> None:
    config = RunConfig()
    assert RunConfig.model_validate(config.model_dump(by_alias=True)) == config


@pytest.mark.parametrize("path", FIELDS)
def test_a_setting_has_one_line_of_help(path: str) -> None:
    text = FIELDS[path].description or ""
    assert 4 <= len(text) <= 120
    assert "\n" not in text
    assert not text.endswith(".")


# Arguments of an optimizer's own: what they allow is that library's to say.
@pytest.mark.parametrize("path", sorted(set(FIELDS) - {"optimizer.args"}))
def test_a_number_has_limits(path: str) -> None:
    assert limited(FIELDS[path].annotation, FIELDS[path].metadata)


def test_a_number_without_limits_would_be_noticed() -> None:
    assert not limited(int)
    assert not limited(dict[str, int | None])
    assert limited(int, [annotated_types.Ge(0)])
    assert limited(tuple[Annotated[int, annotated_types.Gt(0)], str] | None)


@pytest.mark.parametrize(
    "given",
    [
        {"buckets": {"resolution": -64}},
        {"buckets": {"resolution": [512, 0]}},
        {"network": {"block_ranks": {"down": -4}}},
        {"network": {"rank": -4}},
        {"optimizer": {"learning_rate": float("nan")}},
        {"network": {"rnak": 4}},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate(given)
