"""`trainpilot import`: another trainer's configuration as ours, with an account of every key."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trainpilot.errors import ExitCode, PilotError

if TYPE_CHECKING:
    from trainpilot.dialects import Dialect, Reading

HELP = "Turn a configuration of Kohya, sd-scripts, AI Toolkit, OneTrainer or diffusers into ours"
EXAMPLE = "trainpilot import first_lora.json --out first_lora.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="configuration file, or a text file with the command line")
    parser.add_argument("--from", dest="dialect", metavar="DIALECT", help="its dialect, where it cannot be told")
    parser.add_argument("--out", metavar="FILE", help="file to write (.toml); beside the given one by default")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what became of every key as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._foreign import read
    from trainpilot.cli._options import workspace

    path = Path(args.file).expanduser()
    found, reading = read(path, workspace(args), args.dialect)
    out = Path(args.out).expanduser() if args.out else _beside(path)
    write_new(out, _document(path, found, reading))
    if args.json:
        head = {"file": str(path), "dialect": found.NAME, "written": str(out), "counts": reading.counts()}
        print(json.dumps({**head, **reading.lists(), "config": reading.config}))
    else:
        print(f"{path.name}: {found.LABEL}")
        print(reading.account(), end="")
        print(f"written: {out}\ntrain with: trainpilot train {out}")
    return int(ExitCode.DONE)


def _beside(path: Path) -> Path:
    return path.with_suffix(".toml") if path.suffix != ".toml" else path.with_name(f"{path.stem}-trainpilot.toml")


def _document(path: Path, found: Dialect, reading: Reading) -> str:
    """Our file, with what differs as comments at its head."""
    import tomli_w

    head = [f"# From {path.name}, {found.LABEL}."]
    for title, items in (("approximated", reading.approximated), ("refused", reading.refused)):
        head += [f"# {title}: {' '.join(item.text().split())}" for item in items]
    return "\n".join(head) + "\nschema = 1\n" + tomli_w.dumps(reading.config)


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, synced before it has its name. PilotError where it does, or cannot."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # fails where the name is taken, also by somebody who was faster
        finally:
            beside.unlink()
    except FileExistsError as error:
        raise PilotError(path, "exists", "a new file", "Choose another name with --out.") from error
    except OSError as error:
        raise PilotError(path, error.strerror or error, "a folder that can be written", "Check the path.") from error
