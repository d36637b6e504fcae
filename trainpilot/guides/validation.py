"""`validate_config_usage.py` of the FLUX identity guide: do its scripts and configurations belong together?

Each check is a function over the guide's folder that returns what is wrong; all of them run, and one line each says
how it went.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainpilot.config.describe import settings
from trainpilot.config.document import read_toml
from trainpilot.config.layers import from_tables
from trainpilot.errors import ExitCode, PilotError, Problems
from trainpilot.families.card import card
from trainpilot.guides.flux_identity import PROFILES

SHELL = ("train_flux_fast.sh", "train_flux_final.sh", "train_dashboard.sh")
BUILDER = "build_train_cmd.py"
# What the guide's first repair set right: these must hold in both files, whatever else a person changes.
REPAIRED: dict[str, dict[str, float]] = {
    "fast": {"noise.offset": 0.05, "network.dropout": 0.0, "loss.min_snr_gamma": 0.0},
    "final": {"noise.offset": 0.1, "network.dropout": 0.1, "loss.min_snr_gamma": 5.0},
}
Check = Callable[[Path], Iterator[str]]


def scripts_use_the_builder(root: Path) -> Iterator[str]:
    """Every script of the guide calls the one maker of the command, and none calls a trainer by itself."""
    for name in SHELL:
        path = root / "scripts" / name
        if not path.is_file():
            yield f"{path} is missing"
            continue
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
        if not any(BUILDER in line for line in lines):
            yield f"{path} does not call {BUILDER}"
        yield from (f"{path} trains by itself: {line.strip()}" for line in lines if "trainpilot train" in line)


def builder_is_whole(root: Path) -> Iterator[str]:
    """The maker of the command can be read as Python and calls the one implementation."""
    path = root / "scripts" / BUILDER
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        yield f"{path} is missing"
        return
    except SyntaxError as error:
        yield f"{path}, line {error.lineno}: {error.msg}"
        return
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if "trainpilot.guides.flux_identity" not in modules:
        yield f"{path} does not import trainpilot.guides.flux_identity"


def configurations_are_valid(root: Path) -> Iterator[str]:
    """Both files are TOML, and every key in them is a setting."""
    for path in _paths(root).values():
        try:
            yield from (problem.message for problem in from_tables(path.name, _tables(path)).problems)
        except PilotError as error:
            yield error.message


def repairs_are_in_place(root: Path) -> Iterator[str]:
    """alpha equals rank, and noise offset, dropout and SNR gamma are the guide's."""
    for name, path in _paths(root).items():
        values = _values(path)
        rank, alpha = values.get("network.rank"), values.get("network.alpha")
        if rank is None or rank != alpha:
            yield f"{path}: network.alpha is {alpha}, network.rank is {rank}; the guide has them equal"
        for setting, wanted in REPAIRED[name].items():
            if values.get(setting) != wanted:
                yield f"{path}: {setting} is {values.get(setting)}, the guide has {wanted:g}"


def flux_has_what_it_needs(root: Path) -> Iterator[str]:
    """What FLUX cannot be trained without: its own noise levels and guidance, frozen encoders, bf16, checkpointing."""
    family = card("flux").defaults
    for path in _paths(root).values():
        # As a run merges them: the family's values below the file's.
        values = dict(from_tables("family flux", family).values) | _values(path)
        if values.get("noise.timesteps") in (None, "auto", "uniform"):
            yield f"{path}: noise.timesteps is {values.get('noise.timesteps')}; FLUX needs the middle of the path most"
        if (guidance := values.get("noise.guidance", settings()["noise.guidance"].default)) != 1:
            yield f"{path}: noise.guidance is {guidance}; FLUX.1-dev is trained with 1, and sampled with more"
        if values.get("text_encoder.train") is not False:
            yield f"{path}: text_encoder.train is not false"
        if values.get("precision.mixed") != "bf16":
            yield f"{path}: precision.mixed is {values.get('precision.mixed')}; fp16 overflows in FLUX, bf16 does not"
        if values.get("memory.gradient_checkpointing") is not True:
            yield f"{path}: memory.gradient_checkpointing is not true"


CHECKS: tuple[Check, ...] = (
    scripts_use_the_builder,
    builder_is_whole,
    configurations_are_valid,
    repairs_are_in_place,
    flux_has_what_it_needs,
)


def main(root: Path) -> int:
    """Print a line for each check; 0 where all hold, 2 where one does not."""
    failed = 0
    for check in CHECKS:
        found = list(check(root))
        failed += bool(found)
        print(f"{'FAIL' if found else 'ok  '}  {str(check.__doc__).strip()}")
        for one in found:
            print(f"      {one}")
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold in {root}")
    return int(ExitCode.BAD_INPUT if failed else ExitCode.DONE)


def _paths(root: Path) -> dict[str, Path]:
    return {name: root / "configs" / f"{profile}.toml" for name, profile in PROFILES.items()}


def _tables(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_toml(path).items() if key not in ("profile", "schema")}


def _values(path: Path) -> dict[str, Any]:
    """Dotted setting -> value; nothing where the file cannot be read, which another check reports."""
    try:
        return dict(from_tables(path.name, _tables(path)).values)
    except (PilotError, Problems):
        return {}
