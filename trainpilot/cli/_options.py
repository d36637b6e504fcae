"""The options that `train`, `plan` and `queue` share, and how they become a resolved configuration.

Used by the verbs that start from a configuration. Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console

    from trainpilot.config.merge import Resolved


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shared options: which configuration, which data, which base model, and single settings."""
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="configuration file (.toml, or another trainer's), or a run folder"
    )
    parser.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same, as other trainers take it")
    parser.add_argument("--profile", metavar="P", help="profile by name (see `trainpilot profiles`) or by file")
    parser.add_argument(
        "--dataset", action="append", metavar="DIR", help="folder of pictures; several for several datasets"
    )
    parser.add_argument("--base-model", metavar="MODEL", help="diffusers folder or .safetensors file")
    parser.add_argument("--name", metavar="RUN", help="name of the run and of its file")
    parser.add_argument(
        "--set",
        action="append",
        dest="overrides",
        metavar="SECTION.KEY=VALUE",
        help="override one setting; datasets.strict=true sets it for every dataset, datasets.0.repeats=3 for the first",
    )
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")


def console() -> Console:
    """Where tables are printed: as wide as the terminal, and wide enough not to fold paths where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def workspace(args: argparse.Namespace) -> Workspace:
    """The workspace that `--workspace` names, or the one that is found."""
    given = getattr(args, "workspace", None)
    return Workspace(Path(given).expanduser().resolve()) if given else Workspace.find()


def lora_at_strength(given: str, option: str) -> tuple[Path, float]:
    """FILE or FILE:STRENGTH; a file may have a colon in its name. PilotError where there is no such file."""
    path, _, strength = given.rpartition(":")
    try:
        found = (Path(path), float(strength)) if path else (Path(given), 1.0)
    except ValueError:
        found = (Path(given), 1.0)
    if not found[0].is_file():
        raise PilotError(option, given, "an existing .safetensors file, with :STRENGTH or without", "Check the path.")
    return found


def resolve(args: argparse.Namespace) -> tuple[Workspace, Resolved]:
    """Merge everything the command line names. Raises PilotError or Problems; nothing is written."""
    from trainpilot.config.merge import resolve as merge

    place = workspace(args)
    direct: dict[str, object] = {}
    if args.dataset:
        direct["datasets"] = [{"path": path} for path in args.dataset]
    if args.base_model:
        direct["model.base"] = args.base_model
    if args.name:
        direct["run.name"] = args.name
    given = args.config or args.config_option
    file = _file(given) if given else None
    resolved = merge(
        place,
        profile=args.profile,
        file=file,
        tables=_foreign_tables(file, args) if file else None,
        environment=os.environ,
        overrides=args.overrides or (),
        direct=direct,
    )
    return place, resolved


def _foreign_tables(file: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a dialect reads from another trainer's file, its account printed; None for a file of our own."""
    from trainpilot.cli._foreign import is_foreign, read

    if not is_foreign(file):
        return None
    found, reading = read(file, workspace(args))
    out = sys.stderr if getattr(args, "json", False) else sys.stdout
    print(f"{file.name}: {found.LABEL}", reading.account(), sep="\n", file=out)
    return reading.config


def _file(given: str) -> Path:
    """The configuration file; a run folder stands for its newest run.toml."""
    path = Path(given).expanduser()
    if path.is_dir():
        found = sorted(path.glob("run*.toml"), key=_attempt)
        if not found:
            raise PilotError(path, "a folder without run.toml", "a .toml file or a run folder", "Name the file itself.")
        return found[-1].resolve()
    return path.resolve()


def _attempt(path: Path) -> int:
    number = path.stem.removeprefix("run").lstrip(".")
    return int(number) if number.isdigit() else 1
