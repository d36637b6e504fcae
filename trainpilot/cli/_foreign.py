"""Other trainers' configuration files on the disk: is it one, which dialect, what it says. Used by verbs.

The dialects themselves see only texts; the files a configuration names are read here, and nowhere else.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace, possible_path

if TYPE_CHECKING:
    from trainpilot.dialects import Dialect, Reading


def is_foreign(path: Path) -> bool:
    """Whether a file is another trainer's: by its ending, or, of two TOML files, by its keys."""
    from trainpilot.dialects import LEAST_SCORE, dialects

    if path.suffix != ".toml":
        return path.is_file()
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = tomllib.loads(text)
    except (OSError, ValueError, RecursionError):
        return False  # what is wrong with it is said by the reader of our own files
    if tree.get("schema") or tree.get("kind"):
        return False
    return max(dialect.sniff(text) for dialect in dialects().values()) >= LEAST_SCORE


def read(path: Path, workspace: Workspace, name: str | None = None) -> tuple[Dialect, Reading]:
    """The dialect of a file (or the one that `name` says) and what it reads. PilotError or Problems."""
    from trainpilot.dialects import dialect, recognise

    text = text_of(path)
    found = dialect(name.replace("-", "_")) if name else recognise(text, str(path))

    def nearby(given: str) -> str | None:
        place = possible_path(given)
        places = [place] if place.is_absolute() else [path.parent / place, workspace.root / place, Path.cwd() / place]
        return next((text_of(candidate) for candidate in places if candidate.is_file()), None)

    return found, found.read(text, nearby)


def text_of(path: Path) -> str:
    """The text of a configuration file. PilotError where it is missing, too large or not UTF-8."""
    from trainpilot.dialects._text import LARGEST

    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise PilotError(path, error.strerror or error, "a readable file", "Check the path.") from error
    if len(data) > LARGEST:
        raise PilotError(path, "more than 1 MiB", "a configuration file", "Is this the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PilotError(path, f"not UTF-8 at byte {error.start}", "a UTF-8 text", "Save it as UTF-8.") from error
