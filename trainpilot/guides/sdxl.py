"""The SDXL guide's `train_lora.py`: its options as ours, by itself and as several processes under accelerate.

    python training/train_lora.py --config training_config.yaml --hub_model_id user/model
    accelerate launch --mixed_precision="fp16" training/train_lora.py --config training_config.yaml

One process is `trainpilot train`. Of several, the first makes the run's folder and tells the others where it is; all
of them then are `trainpilot run FOLDER`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainpilot import cli
from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.atomic import write_beside
from trainpilot.runs.process import Identity

PRECISION = "ACCELERATE_MIXED_PRECISION"  # what `accelerate launch --mixed_precision` leaves for its processes
_KNOWN = ("fp16", "bf16")
_PATIENCE = 1800.0  # seconds for the first process to scan the pictures and make the folder


def options(root: Path, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The guide's options as those of `trainpilot train`. root: the workspace, where relative paths start too."""
    parser = argparse.ArgumentParser(
        prog="train_lora.py", description="Train a LoRA as the SDXL guide does; what is not named here is in the file."
    )
    parser.add_argument("--config", required=True, help="the guide's training_config.yaml, or any file of a trainer")
    parser.add_argument("--hub_model_id", metavar="OWNER/NAME", help="publish the result there, private, at the end")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="trade a third of the speed for memory")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    args = parser.parse_args(argv)
    config = Path(args.config).expanduser()
    if not config.is_absolute() and not config.exists():
        config = root / config
    overrides = [f"saving.links={root / 'outputs'}"]
    if args.hub_model_id:
        overrides.append(f"saving.hub_model_id={args.hub_model_id}")
    if args.gradient_checkpointing:
        overrides.append("memory.gradient_checkpointing=true")
    if (asked := environment.get(PRECISION, "no")) in _KNOWN:
        overrides.append(f"precision.mixed={asked}")
    elif asked != "no":
        raise PilotError("--mixed_precision", asked, "no, fp16, bf16", "precision.base = fp8 stores the base in fp8.")
    overrides += args.set
    return ["--config", str(config), "--workspace", str(root), *(part for one in overrides for part in ("--set", one))]


def main(root: Path, argv: Sequence[str]) -> int:
    """Train; the exit code is the trainer's."""
    try:
        given = options(root, argv, os.environ)
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cli.main(["train", *given])
        folder = _together(given)
    except PilotError as error:
        print(error.text(), flush=True)
        return int(error.exit_code)
    return int(ExitCode.BAD_INPUT) if folder is None else cli.main(["run", str(folder)])


def _together(given: list[str]) -> Path | None:
    """The run's folder, in every process of one launch; None where the first one could not make it and has said why."""
    place = _meeting_place()
    if int(os.environ.get("RANK", "0")) > 0:
        return _told(place)
    try:
        folder = _made(given)
    except BaseException:
        write_beside(place, b"")
        raise
    write_beside(place, os.fsencode(folder))
    return folder


def _made(given: list[str]) -> Path:
    from trainpilot.cli import train
    from trainpilot.cli._preparing import prepare
    from trainpilot.runs.stop import StopFlag

    parser = argparse.ArgumentParser()
    train.arguments(parser)
    with StopFlag() as stop:
        return prepare(parser.parse_args(given), stop).path


def _meeting_place() -> Path:
    """A file that the processes of one launch on one machine know without being told: named after their launcher."""
    launcher = Identity.of(os.getppid())
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if launcher is None or nodes > 1:
        remedy = "Make the folder with `trainpilot train --prepare`, then start `trainpilot run FOLDER` on each."
        raise PilotError("train_lora.py", "processes on several machines", "processes of one machine", remedy)
    folder = Path(tempfile.gettempdir()) / f"trainpilot-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise PilotError(folder, "it belongs to somebody else", "a folder of one's own", "Set TMPDIR to another place.")
    return folder / f"{launcher.pid}-{launcher.started:.0f}"


def _told(place: Path) -> Path | None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if place.is_file():
            told = place.read_bytes()
            return Path(os.fsdecode(told)) if told else None
        time.sleep(0.1)
    given = f"nothing within {_PATIENCE:.0f} s"
    raise PilotError("train_lora.py", given, "the folder that the first process makes", "Look at its output.")
