"""Merge a run's configuration from its sources, once, and say where every value came from.

family defaults < profile < file < PILOT_* environment < command line. The family must be known first, so the base
model is found in a first pass over the same sources. Used by the verbs that start from a configuration and by the
panel; the result is written into the run folder and never merged again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainpilot.config import decisions, rules
from trainpilot.config.document import ABOUT_THE_FILE, profile_tables, read_toml
from trainpilot.config.layers import Layer, from_environment, from_overrides, from_tables, nest, stack
from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.config.validate import validate
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import card
from trainpilot.models.detect import Base, detect
from trainpilot.models.ondisk import find_base
from trainpilot.workspace import Workspace

# What a run without any profile, file or number of steps takes; a note says so.
DEFAULT_PROFILE = "standard"
CUSTOM = "custom"


@dataclass(frozen=True)
class Resolved:
    """The whole configuration of a run.

    sources: dotted path -> "family sd15", "profile standard", "file a.toml", "environment PILOT_...", "--set",
    "--base-model" and the like, "decided" (a note gives the reason) or "default". notes: automatic decisions and
    settings without effect, in words.
    """

    config: RunConfig
    sources: dict[str, str]
    notes: list[str] = field(default_factory=list)


def resolve(
    workspace: Workspace,
    *,
    profile: str | None = None,
    file: Path | None = None,
    tables: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    direct: Mapping[str, object] | None = None,
) -> Resolved:
    """Merge the sources and check the result.

    profile: a name or a .toml path; file: a configuration or a run.toml; tables: what a dialect read from `file`, where
    that is another trainer's; environment: where PILOT_SECTION__KEY are
    looked up; overrides: `section.key=value`; direct: dotted path -> value of command-line flags. Raises Problems
    with everything that is wrong, at once.
    """
    notes: list[str] = []
    problems: list[PilotError] = []
    document = dict(tables) if tables is not None else read_toml(file) if file else {}
    settings = from_overrides(overrides)
    for layer in settings:
        profile = layer.values.pop("profile", profile)  # --set profile=P is --profile P
    layers, name = _file_layers(workspace, profile, file, document, notes)
    layers += from_environment(environment or {})
    layers += _direct_layers(direct or {})
    layers += settings
    values, _, _, _ = stack(layers)
    base = _collect(problems, lambda: _base(workspace, values))
    family = base.family if base else str(values.get("model.family", "auto"))
    known = (
        _collect(problems, lambda: card(family).variant(base.variant if base else None)) if family != "auto" else None
    )
    if known is not None:
        layers.insert(0, from_tables(f"family {known.name}", known.defaults))
    decisions.one_budget(layers, notes, problems)
    values, datasets, sources, found = stack(layers)
    problems += found
    decisions.follow_rank(layers, values, sources, notes)
    values["profile"] = name
    tables = nest(values) | {"datasets": [nest(item) for item in datasets]}
    config, wrong = validate(tables, sources)
    problems += wrong
    _fill_sources(config, sources)
    if known is not None and base is not None:
        decisions.fill(config, sources, notes, known, base)
    decisions.paths(config, sources, workspace, file, problems)
    problems += rules.problems(config, sources, known, base, skip=[problem.where for problem in problems])
    if problems:
        raise Problems(problems)
    notes += rules.notes(config, sources, known, base)
    return Resolved(config, sources, notes)


def _file_layers(
    workspace: Workspace, profile: str | None, file: Path | None, document: dict[str, Any], notes: list[str]
) -> tuple[list[Layer], str]:
    """Profile and file as layers, and the profile's name. A run.toml is complete: no profile goes below it."""
    tables = dict(document)
    finished = tables.pop("kind", None) == "train"
    for key in ABOUT_THE_FILE:
        tables.pop(key, None)
    named = tables.pop("profile", None)  # a text names the profile below; a table describes this file as a profile
    name = profile or (named if isinstance(named, str) else None)
    if name is None:
        name = CUSTOM if file else DEFAULT_PROFILE
        if not file:
            notes.append(f"profile {DEFAULT_PROFILE}: none was named")
    layers = []
    if name != CUSTOM and not (finished and profile is None):
        layers.append(from_tables(f"profile {name}", profile_tables(workspace, name)))
    if file:
        layers.append(from_tables(f"file {file.name}", tables))
    return layers, Path(name).stem if name.endswith(".toml") else name


_FLAGS = {"datasets": "--dataset", "model.base": "--base-model", "run.name": "--name"}


def _direct_layers(direct: Mapping[str, object]) -> list[Layer]:
    layers = []
    for path, value in direct.items():
        layer = Layer(_FLAGS.get(path, "command line"))
        layer.put(path, value)
        layers.append(layer)
    return layers


def _collect(problems: list[PilotError], call: Any) -> Any:
    """The call's result, or None with its problems kept for the one report."""
    try:
        return call()
    except Problems as several:
        problems += several.problems
    except PilotError as error:
        problems.append(error)
    return None


def _base(workspace: Workspace, values: Mapping[str, Any]) -> Base:
    """Detect the base model and compare it with the family that was asked for."""
    vae = values.get("model.vae")
    given = workspace.locate(str(vae), workspace.models) if vae else None
    base = detect(find_base(workspace, str(values.get("model.base") or "")), given)
    wanted = values.get("model.family", "auto")
    if wanted not in ("auto", base.family):
        remedy = f"Choose another base model, or set model.family to {base.family} or auto."
        label = card(str(wanted)).label  # a family that does not exist is the first thing to say
        raise PilotError("model.base", f"{base.path} is {base.family} ({base.reason})", f"a {label} model", remedy)
    return base


def _fill_sources(config: RunConfig, sources: dict[str, str]) -> None:
    """Give every leaf of the configuration a source; what nothing set came from the schema's defaults."""
    from trainpilot.config.describe import settings

    for path in settings():
        if path != "datasets":
            sources.setdefault(path, "default")
    for index in range(len(config.datasets)):
        for path in settings(Dataset):
            sources.setdefault(f"datasets.{index}.{path}", "default")
