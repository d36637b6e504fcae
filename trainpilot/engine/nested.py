"""Nested state (an optimizer's, say) as JSON plus a flat table of tensors, so that no checkpoint needs a pickle.

Floats survive exactly (JSON carries the shortest digits that give the same double); NaN and infinity too. Used by
`checkpoints.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def flatten(value: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """A JSON document of `value`; its tensors go to `tensors` under names that start with `prefix`.

    Takes dicts (with str or int keys), lists, tuples, tensors and plain scalars; raises TypeError on anything else.
    """
    if isinstance(value, Tensor):
        name = f"{prefix}/{len(tensors)}"
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, flatten(item, tensors, prefix)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [flatten(item, tensors, prefix) for item in value]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {prefix}")


def unflatten(document: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`."""
    ((kind, content),) = document.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unflatten(item, tensors) for key, item in content}
    if kind == "list":
        return [unflatten(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(unflatten(item, tensors) for item in content)
    if kind == "dtype":
        return getattr(torch, content)
    return content
