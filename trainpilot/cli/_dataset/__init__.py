"""The sub-commands of `trainpilot dataset`, one file each: HELP, EXAMPLE, `arguments(parser)`, `run(args)`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainpilot.workspace import Workspace


@cache
def commands() -> dict[str, ModuleType]:
    """All sub-commands by name."""
    return {found.name: importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)}


def located(args: argparse.Namespace) -> tuple[Workspace, Path]:
    """The workspace and the folder that PATH means."""
    from trainpilot.cli import _options
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets.table import locate

    place = _options.workspace(args)
    return place, locate(Dataset(path=args.path), place)


def common_arguments(parser: argparse.ArgumentParser, *, inner: bool = False) -> None:
    """--json and --workspace. inner: of a parser below one that has them, whose values it must not reset."""
    more: dict[str, Any] = {"default": argparse.SUPPRESS} if inner else {}
    parser.add_argument("--json", action="store_true", help="print JSON", **more)
    parser.add_argument(
        "--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)", **more
    )


def path_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="folder of pictures, or its name in datasets/")
