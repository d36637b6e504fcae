"""The command line of the panel: one module of this folder for each verb, found by scanning it.

A verb module has HELP (one line), EXAMPLE (a command), `arguments(parser)` and `run(args) -> int`, as trainpilot's.
Heavy imports happen inside `run`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from trainpilot import __version__
from trainpilot.errors import ExitCode, PilotError


def verbs() -> dict[str, str]:
    """Verb -> module name, of every verb this installation has."""
    found = (info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return {name.replace("_", "-"): f"{__name__}.{name}" for name in sorted(found)}


def _parser(modules: dict[str, ModuleType]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="controlpilot", description="The panel of a LoRA Pilot.")
    parser.add_argument("--version", action="version", version=f"controlpilot {__version__}")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Errors a person can act on become one message and their exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    known = verbs()
    wanted = {given[0]: known[given[0]]} if given and given[0] in known else known
    args = _parser({verb: importlib.import_module(name) for verb, name in wanted.items()}).parse_args(given)
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
