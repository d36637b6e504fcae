"""The command line: one module of this folder for each verb, found by scanning it.

A verb module has HELP (one line), EXAMPLE (a command), `arguments(parser)` and `run(args) -> int`. Its name is the
verb, with _ for -; a last _ is dropped (import_ is the verb import). Heavy imports happen inside `run`. `run_verb`
does the same for controlpilot's own folder of verbs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from trainpilot import __version__
from trainpilot.errors import ExitCode, PilotError


def verbs(package: ModuleType | None = None) -> dict[str, str]:
    """Verb -> module name, of every verb this installation has. package: whose; this one's by default."""
    name, path = (package.__name__, package.__path__) if package else (__name__, __path__)
    found = (info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_"))
    return {verb.rstrip("_").replace("_", "-"): f"{name}.{verb}" for verb in sorted(found)}


def _parser(prog: str, description: str, modules: dict[str, ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, module in modules.items():
        sub = commands.add_parser(
            verb,
            help=module.HELP,
            description=module.HELP,
            epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(sub)
        sub.set_defaults(_run=module.run)
    return parser


def run_verb(package: ModuleType, prog: str, description: str, argv: Sequence[str] | None) -> int:
    """Run one verb of a package. Errors a person can act on become one message and their exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    known = verbs(package)
    wanted = {given[0]: known[given[0]]} if given and given[0] in known else known
    modules = {verb: importlib.import_module(name) for verb, name in wanted.items()}
    args = _parser(prog, description, modules).parse_args(given)
    try:
        return int(args._run(args))
    except PilotError as error:
        if getattr(args, "json", False):
            print(json.dumps({"error": error.as_dict()}))
        else:
            print(error.text(), file=sys.stderr)
        return int(error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        return int(ExitCode.FAILED)


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the screen: it names internals, and what matters we say ourselves.

    Set before they are imported; a person's own setting of these variables wins.
    """
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """`trainpilot`: run one verb, and return the exit code."""
    quiet_libraries()
    return run_verb(sys.modules[__name__], "trainpilot", "Train a LoRA and prove that it works.", argv)
