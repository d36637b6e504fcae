"""Profiles: named configurations, one TOML file each; a person's own live in config/profiles of the workspace.

A profile is a configuration file with a table `[profile]` (label, help). Used by the merge and the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainpilot.workspace import Workspace

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class About:
    """What a profile says about itself."""

    name: str
    label: str
    help: str
    path: Path


def profiles(workspace: Workspace) -> dict[str, Path]:
    """Every profile by name; a person's own replaces a built-in one of the same name."""
    built_in = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    return built_in | {path.stem: path for path in sorted(workspace.profiles.glob("*.toml"))}


def about(path: Path) -> About:
    """Label and help of a profile; a file without them is called by its name."""
    from trainpilot.config.document import read_toml

    given = read_toml(path).get("profile")
    said = given if isinstance(given, dict) else {}
    return About(path.stem, str(said.get("label", path.stem)), str(said.get("help", "")), path)
