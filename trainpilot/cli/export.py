"""`trainpilot export`: a run or configuration as a file of another trainer, with the command that trains with it."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from trainpilot.cli import _options
from trainpilot.errors import ExitCode

if TYPE_CHECKING:
    from trainpilot.config.schema import RunConfig

HELP = "Write a run or configuration for Kohya, sd-scripts, AI Toolkit, OneTrainer or diffusers"
EXAMPLE = "trainpilot export zorp --to sd-scripts --out zorp_sd_scripts.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    _options.arguments(parser)
    parser.add_argument("--to", required=True, metavar="DIALECT", help="the trainer to write for")
    parser.add_argument("--out", metavar="FILE", help="file to write; printed where it is not given")
    parser.add_argument("--json", action="store_true", help="print what became of every setting as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli.import_ import write_new
    from trainpilot.dialects import dialect

    found = dialect(args.to.replace("-", "_"))
    writing = found.write(_config(args))
    written = []
    if args.out:
        out = Path(args.out).expanduser()
        for name, text in writing.beside.items():
            write_new(out.with_name(name), text)
            written.append(str(out.with_name(name)))
        write_new(out, writing.text)
        written.append(str(out))
    command = writing.command
    if command and args.out:
        # The command names the file as the dialect does; here it has the name it was given.
        command = [str(Path(args.out).name) if word.endswith(found.SUFFIX) else word for word in command]
    if args.json:
        head = {"dialect": found.NAME, "written": written, "command": command, "counts": writing.counts()}
        print(json.dumps({**head, **writing.lists(), "text": writing.text, "beside": writing.beside}))
        return int(ExitCode.DONE)
    print(f"{found.LABEL}")
    print(writing.account(), end="")
    if not args.out:
        for name, text in {"": writing.text, **writing.beside}.items():
            print(f"\n--- {name or 'file'}\n{text}", end="")
    for path in written:
        print(f"written: {path}")
    if command:
        print(f"train with: {shlex.join(command)}")
    return int(ExitCode.DONE)


def _config(args: argparse.Namespace) -> RunConfig:
    """The configuration of a run by its name or folder, else what the command line merges."""
    from trainpilot.errors import PilotError
    from trainpilot.runs.rundir import RunDir

    given = args.config or args.config_option
    plain = not (args.profile or args.dataset or args.base_model or args.name or args.overrides)
    if given and plain and not Path(given).expanduser().is_file():
        try:
            return RunDir.find(_options.workspace(args), given).resolved.config
        except PilotError:
            if not Path(given).expanduser().is_dir():
                raise
    return _options.resolve(args)[1].config
