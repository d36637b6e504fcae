"""The logs there are: of services, of runs, of jobs; by a name that can only lead into their folders.

Reading one is `logreader`'s, which costs the same for a gigabyte as for a page. Used by the Logs page and the API.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, Field

from controlpilot.views.refusals import NotFound
from trainpilot.runs.taskdir import LONGEST_NAME
from trainpilot.workspace import Workspace

Kind = Literal["service", "run", "job"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NEWEST = 40  # runs and jobs that are listed; any of them can be opened by its name
_NAME = re.compile(rf"(?!\.)[^/\\\x00-\x1f]{{1,{LONGEST_NAME}}}")
_SERVICE = re.compile(r"\w[\w.-]*\.log(\.\d+)?")


class Log(BaseModel):
    """One log."""

    kind: Kind
    name: str = Field(description="A file in logs/, or the name of a run or job")
    size: int = Field(description="Bytes of the live file")
    changed: float = Field(description="Unix seconds of the last line")


class LogList(BaseModel):
    """All logs of services and those of the newest runs and jobs, in each kind the newest first."""

    logs: list[Log]
    left_out: int = Field(description="Older logs of runs and jobs that are not listed")


def logs(workspace: Workspace, newest: int = NEWEST) -> LogList:
    """The logs of a workspace."""
    found: list[Log] = []
    left_out = 0
    for kind in KINDS:
        every = sorted(_of_kind(workspace, kind), key=lambda log: (-log.changed, log.name))
        most = len(every) if kind == "service" else newest
        found += every[:most]
        left_out += max(0, len(every) - most)
    return LogList(logs=found, left_out=left_out)


def path_of(workspace: Workspace, kind: str, name: str) -> Path:
    """The file of a log. NotFound for a name that is none; a link that leads out of the folder is none either."""
    wanted = NotFound("log", f"{kind[:20]} {name[:LONGEST_NAME]}", "a log of the list", "See the list of logs.")
    if kind not in KINDS or not _NAME.fullmatch(name) or (kind == "service" and not _SERVICE.fullmatch(name)):
        raise wanted
    for folder in _folders(workspace, kind):
        path = folder / name if kind == "service" else folder / name / "log.txt"
        if path.is_file() and not path.is_symlink() and (kind == "service" or not path.parent.is_symlink()):
            return path
    raise wanted


def _folders(workspace: Workspace, kind: str) -> tuple[Path, ...]:
    """Where logs of a kind lie. In the pod supervisord writes those of services to a local disk, PILOT_LOGS, so that
    a full workspace stops no service."""
    if kind == "service":
        return Path(os.environ.get("PILOT_LOGS") or "/var/log/pilot"), workspace.logs
    return (workspace.outputs if kind == "run" else workspace.jobs,)


def _of_kind(workspace: Workspace, kind: Kind) -> Iterator[Log]:
    entries: dict[str, os.DirEntry[str]] = {}
    for folder in reversed(_folders(workspace, kind)):
        try:
            entries |= {entry.name: entry for entry in os.scandir(folder)}
        except OSError:
            continue  # a fresh workspace has no such folder yet
    for entry in entries.values():
        if kind == "service" and not _SERVICE.fullmatch(entry.name):
            continue
        place = Path(entry.path) if kind == "service" else Path(entry.path) / "log.txt"
        try:
            if entry.is_symlink() or (not entry.is_file() and kind == "service"):
                continue
            stat = place.stat()
        except OSError:
            continue  # a run without a log, or one that went to the trash meanwhile
        yield Log(kind=kind, name=entry.name, size=stat.st_size, changed=stat.st_mtime)
