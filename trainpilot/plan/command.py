"""The command that makes a resolved configuration again, wherever its values came from. Used by the plan."""

from __future__ import annotations

import json
from typing import Any

from trainpilot.config.describe import atoms
from trainpilot.config.layers import declaration
from trainpilot.config.merge import CUSTOM, Resolved

# What a profile, a family or a default gives again by itself.
_AGAIN = ("profile ", "family ", "default")


def command(resolved: Resolved, verb: str = "train") -> list[str]:
    """`trainpilot train` with everything that no profile and no family decides, as arguments."""
    profiles = [source.removeprefix("profile ") for source in resolved.sources.values() if source[:8] == "profile "]
    config = resolved.config.model_dump()
    words = ["trainpilot", verb, "--profile", profiles[0] if profiles else CUSTOM]
    for dataset in resolved.config.datasets:
        words += ["--dataset", dataset.path]
    words += ["--base-model", resolved.config.model.base]
    if resolved.config.run.name:
        words += ["--name", resolved.config.run.name]
    said = {"model.base", "run.name", "profile"} | {f"datasets.{n}.path" for n in range(len(config["datasets"]))}
    for path, source in sorted(resolved.sources.items()):
        decided = source == "decided" and path != "network.alpha"
        if path not in said and not decided and not source.startswith(_AGAIN):
            value = _get(config, path)
            if value is not None or not path.startswith("training."):
                words += ["--set", f"{path}={_written(path, value)}"]
    return words


def _get(tables: Any, path: str) -> Any:
    for key in path.split("."):
        tables = tables[int(key)] if isinstance(tables, list) else tables[key]
    return tables


def _written(path: str, value: Any) -> str:
    """A value as `describe.from_text` reads it back."""
    info = declaration(path)
    kinds, _ = atoms(info.annotation) if info is not None else ({str}, [])
    if value is None:
        return "none"
    if isinstance(value, str):
        # A text that looks quoted, or like "none", needs quotes of its own.
        return f'"{value}"' if value[:1] in "\"'" or type(None) in kinds else value
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {json.dumps(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)
