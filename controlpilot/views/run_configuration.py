"""A run's configuration with the source of each value, and in what it differs from another run's.

Used by the run's pages, the wizard's clone and the API.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from pydantic import BaseModel, Field

from controlpilot.views.runs import folder_of
from trainpilot.config.describe import dataset_settings
from trainpilot.config.describe import settings as known_settings
from trainpilot.plan.command import command
from trainpilot.runs.rundir import RunDir, configurations
from trainpilot.workspace import Workspace


class Setting(BaseModel):
    """One setting of a run: its value as text and where that came from."""

    path: str
    value: str
    source: str
    help: str


class Configuration(BaseModel):
    """A run's whole configuration, as its newest run.toml says. text: that file as it is."""

    file: str
    files: list[str] = Field(description="All of them: a run resumed with changes has several")
    settings: list[Setting]
    decisions: list[str] = Field(description="What was decided automatically, and why")
    text: str
    command: str


class Difference(BaseModel):
    """A setting in which two runs differ; empty text: the run does not have it."""

    path: str
    here: str
    there: str


def configuration(workspace: Workspace, name: str) -> Configuration:
    """The configuration of a run. PilotError where it cannot be read."""
    path = folder_of(workspace, name)
    run = RunDir.open(path, workspace)
    files = configurations(path)
    help_of = {where: info.description or "" for where, info in known_settings().items()}
    help_of |= {where: info.description or "" for where, info in dataset_settings().items()}
    found = []
    for where, value in flat(run).items():
        plain = re.sub(r"^datasets\.\d+\.", "", where)
        found.append(
            Setting(path=where, value=value, source=run.resolved.sources.get(where, ""), help=help_of.get(plain, ""))
        )
    return Configuration(
        file=files[-1].name,
        files=[one.name for one in files],
        settings=found,
        decisions=list(run.resolved.notes),
        text=files[-1].read_text(encoding="utf-8", errors="replace"),
        command=shlex.join(command(run.resolved)),
    )


def difference(workspace: Workspace, name: str, other: str) -> list[Difference]:
    """The settings in which two runs differ, but their names."""
    here = flat(RunDir.open(folder_of(workspace, name), workspace))
    there = flat(RunDir.open(folder_of(workspace, other), workspace))
    paths = [path for path in dict.fromkeys([*here, *there]) if path != "run.name"]
    return [
        Difference(path=path, here=here.get(path, ""), there=there.get(path, ""))
        for path in paths
        if here.get(path, "") != there.get(path, "")
    ]


def flat(run: RunDir) -> dict[str, str]:
    """Dotted path -> value as text, in the schema's order."""
    found: dict[str, str] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for place, inner in enumerate(value):
                walk(inner, f"{path}.{place}")
        else:
            found[path] = _text(value)

    walk(run.config.model_dump(mode="json", exclude={"schema_version"}), "")
    return found


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_text(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
