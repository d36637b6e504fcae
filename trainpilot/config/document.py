"""Configuration files: reading any version, writing run.toml, and finding profiles. Used by the merge and the runs.

A run.toml holds `schema`, `kind`, `resource`, `notes`, the whole configuration, and `[sources]`, where each value
came from; loading it gives the configuration that was merged, without merging again.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from trainpilot.config.describe import did_you_mean
from trainpilot.config.layers import from_tables, nest
from trainpilot.config.migrations import migrate
from trainpilot.config.schema import SCHEMA_VERSION
from trainpilot.config.validate import validate
from trainpilot.errors import PilotError, Problems
from trainpilot.workspace import Workspace, possible_path

if TYPE_CHECKING:
    from trainpilot.config.merge import Resolved

KIND = "train"
# Top-level entries of a document that are no settings.
ABOUT_THE_FILE = ("kind", "sources", "notes", "resource")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file, migrated to the present schema; `schema` itself is left out.

    PilotError names the line of a syntax error, and refuses a file of a newer schema.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise PilotError(path, "does not exist", "a .toml file", "Check the path.") from error
    except OSError as error:
        raise PilotError(path, error.strerror or str(error), "a readable .toml file", "Check permissions.") from error
    except UnicodeDecodeError as error:
        raise PilotError(path, f"not UTF-8 at byte {error.start}", "a UTF-8 .toml file", "Save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise PilotError(path, f"not TOML: {error}", "TOML", "Correct the line; texts need quotes.") from error
    return migrate(path, tables)


def tables_of(resolved: Resolved) -> dict[str, Any]:
    """The configuration as TOML tables; settings that are None are left out, since TOML has no none."""
    return {
        "schema": SCHEMA_VERSION,
        "kind": KIND,
        **_without_none(resolved.config.model_dump(mode="json", exclude={"schema_version"})),
    }


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def write_toml(resolved: Resolved, path: Path, resource: str = "gpu") -> None:
    """Write a run.toml: beside its place, synced, then renamed. resource: "gpu", "cpu" or "net"."""
    head = tables_of(resolved)
    document = {"schema": head.pop("schema"), "kind": head.pop("kind"), "resource": resource}
    document |= {"notes": resolved.notes, **head, "sources": resolved.sources}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        tomli_w.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(path: Path) -> Resolved:
    """A run.toml as it was resolved. Values are checked against the schema again; nothing is merged."""
    from trainpilot.config.merge import Resolved

    tables = read_toml(path)
    if tables.pop("kind", None) != KIND:
        raise PilotError(path, "not a run's configuration", f'kind = "{KIND}"', "Use `trainpilot train CONFIG` for it.")
    sources, notes = tables.pop("sources", {}), tables.pop("notes", [])
    tables.pop("resource", None)
    layer = from_tables(f"file {path.name}", tables)
    flat = nest(layer.values) | {"datasets": [nest(item) for item in layer.datasets or []]}
    config, wrong = validate(flat, sources)
    if layer.problems or wrong:
        raise Problems([*layer.problems, *wrong])
    return Resolved(config, dict(sources), list(notes))


def profile_tables(workspace: Workspace, name: str) -> dict[str, Any]:
    """The settings of a profile, by name or by file; its [profile] table (label, help) is left out."""
    from trainpilot.profiles import profiles

    known = profiles(workspace)
    given = possible_path(name) if name.endswith(".toml") else None
    path = given if given is not None and given.is_file() else known.get(name)
    if path is None:
        remedy = did_you_mean(name, known, "Choose one of these, or name a .toml file.")
        raise PilotError("profile", name, ", ".join(known), remedy)
    tables = read_toml(path)
    for key in (*ABOUT_THE_FILE, "profile"):
        tables.pop(key, None)
    return tables
