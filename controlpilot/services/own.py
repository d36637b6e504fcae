"""A person's own services: `config/services/<name>.toml`, data that anyone with a notebook can write.

So nothing of what it says reaches supervisord's file but three values that cannot carry anything else: a name of small
letters, a switch, a number. The command itself is read and executed by `launch_own`, which supervisord starts as
`pilot`; whatever the file says, it says it as that user. Boot calls `compile`; the Services page shows `declared`.

Keys: command (list of strings), label, help, directory (inside the workspace), environment (table of strings),
autostart, stop_signal (TERM, INT or QUIT), stop_wait (seconds, 1 to 7).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlpilot.services.choices import contents

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
MOST = 32  # services; a folder of thousands would hold up the boot
SIGNALS = ("TERM", "INT", "QUIT")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")

PROGRAM = """\
[program:own-{name}]
command=%(ENV_PILOT_PYTHON)s -m controlpilot.services.launch_own {name}
directory=%(ENV_PILOT_CODE)s
user=pilot
umask=002
environment=HOME="%(ENV_PILOT_HOME)s",USER="pilot"
priority=70
autostart={autostart}
autorestart=unexpected
startsecs=3
startretries=2
stopsignal={stop_signal}
stopwaitsecs={stop_wait}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(ENV_PILOT_LOGS)s/own-{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


@dataclass(frozen=True)
class Own:
    """A declared service of a person's own, checked."""

    name: str
    command: tuple[str, ...]
    label: str
    help: str = ""
    directory: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    autostart: bool = False
    stop_signal: str = "TERM"
    stop_wait: int = 5


class Refused(Exception):
    """Why a file is not taken: for a note, never with the file's contents."""


def compile(folder: Path, chosen: Mapping[str, bool] | None = None) -> tuple[str, list[str]]:
    """supervisord's text for every file that is in order, and a note for every other. Runs as root; raises nothing.

    chosen: autostart by program (own-NAME), where a person has chosen in the panel."""
    taken, notes = declared(folder)
    wanted = chosen or {}
    text = "\n".join(
        PROGRAM.format(
            name=one.name,
            autostart="true" if wanted.get(f"own-{one.name}", one.autostart) else "false",
            stop_signal=one.stop_signal,
            stop_wait=one.stop_wait,
        )
        for one in taken
    )
    return text, notes


def programs(text: str) -> list[str]:
    """The programs of a compiled text."""
    return re.findall(r"^\[program:(own-[a-z0-9-]+)\]$", text, re.MULTILINE)


def declared(folder: Path) -> tuple[list[Own], list[str]]:
    """Every file in order, by name, and notes on the others."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"own services: the folder is not used: {error.strerror}"]
    taken: list[Own] = []
    notes: list[str] = []
    try:
        names = sorted(
            name
            for name in os.listdir(handle)  # noqa: PTH208 - of the opened folder, whatever its path is now
            if name.endswith(".toml")
        )
        if len(names) > MOST:
            notes.append(f"own services: {len(names)} files, the first {MOST} by name are read")
        for name in names[:MOST]:
            try:
                taken.append(_read(name, handle))
            except Refused as why:
                notes.append(f"own service {name!r} is not used: {why}")
    finally:
        os.close(handle)
    return taken, notes


def find(folder: Path, name: str) -> Own:
    """One service by name. Raises Refused."""
    if not NAME.fullmatch(name):
        raise Refused("a name has small letters, digits and dashes")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _read(f"{name}.toml", handle)
    finally:
        os.close(handle)


def _read(file: str, folder: int) -> Own:
    name = file.removesuffix(".toml")
    if not NAME.fullmatch(name):
        raise Refused("a name has small letters, digits and dashes, at most 31")
    try:
        data = contents(file, folder)
        said = tomllib.loads((data or b"").decode("utf-8"))
    except OSError as error:
        raise Refused(f"it cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise Refused(f"it is not TOML ({type(error).__name__})") from error
    known = set(Own.__dataclass_fields__) - {"name"}
    unknown = sorted(key for key in said if key not in known)
    if unknown:
        raise Refused(
            f"{len(unknown)} unknown keys, the first is {unknown[0][:40]!r}; known: {', '.join(sorted(known))}"
        )
    command = said.get("command")
    if not isinstance(command, list) or not command or not all(_plain(word) for word in command) or not command[0]:
        raise Refused('command is a list of words on one line each, as ["python", "server.py"]')
    for key in ("label", "help", "directory"):
        if not _plain(said.get(key, ""), 400):
            raise Refused(f"{key} is a text on one line")
    directory = Path(said.get("directory", "."))
    if directory.is_absolute() or ".." in directory.parts:
        raise Refused("directory is a folder inside the workspace")
    table = said.get("environment", {})
    if not isinstance(table, dict) or not all(
        VARIABLE.fullmatch(key) and _plain(value) for key, value in table.items()
    ):
        raise Refused("environment is a table of names and texts")
    kept = [key for key in table if key.startswith(("LD_", "PILOT_", "SUPERVISOR_", "PYTHON"))]
    if kept:
        raise Refused(f"environment: {kept[0][:40]!r} is not yours to set")
    autostart, wait, signal = said.get("autostart", False), said.get("stop_wait", 5), said.get("stop_signal", "TERM")
    if not isinstance(autostart, bool):
        raise Refused("autostart is true or false")
    if isinstance(wait, bool) or not isinstance(wait, int) or not 1 <= wait <= 7:
        raise Refused("stop_wait is 1 to 7 seconds: the pod itself is given ten")
    if signal not in SIGNALS:
        raise Refused(f"stop_signal is one of {', '.join(SIGNALS)}")
    return Own(
        name=name, command=tuple(command), label=said.get("label") or name, help=said.get("help", ""),
        directory=str(directory), environment=dict(table), autostart=autostart, stop_signal=signal, stop_wait=wait,
    )  # fmt: skip


def _plain(text: object, longest: int = 4096) -> bool:
    """Whether it is a text without control characters."""
    return (
        isinstance(text, str) and len(text) <= longest and not any(ord(sign) < 32 or ord(sign) == 127 for sign in text)
    )
