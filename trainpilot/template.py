"""Seeding a workspace from workspace-template/, and the version that a workspace carries.

Files of the template remember their hash in `config/template.json`: untouched ones are upgraded, edited ones get the
new text beside them as `.new`, deleted ones stay deleted. Used by scripts/demo.sh (`python -m trainpilot.template`),
by the pod's start, and by whoever is about to write into a workspace (`check_writable`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

WORKSPACE_VERSION = 1  # of the folder layout; the first, so there is nothing older to migrate
_RECORD = Path("config") / "template.json"
_FOLDERS = ("datasets/images", "models/loras", "outputs", "jobs", "logs", "config/profiles", "cache")


@dataclass
class Seeding:
    """What seeding did, as paths relative to the workspace."""

    created: list[str] = field(default_factory=list)
    upgraded: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # a new version, written as .new because the file was edited
    deleted: list[str] = field(default_factory=list)  # deleted by a person, and therefore not brought back

    def text(self) -> str:
        """Lines for a terminal; one line when there was nothing to do."""
        lines = [f"{len(self.created)} files new"] if self.created else []
        lines += [f"upgraded {name}" for name in self.upgraded]
        lines += [f"you edited {name.removesuffix('.new')}: its new version is {name}" for name in self.beside]
        lines += [f"{len(self.deleted)} files of the template stay deleted"] if self.deleted else []
        return "\n".join(lines or ["nothing new"])


@dataclass
class _Memory:
    """Hashes of one template file: of what was written under its name, and of what was last offered as `.new`."""

    seeded: str | None = None
    offered: str | None = None


def workspace_version(workspace: Workspace) -> int | None:
    """The version in VERSION, or None where there is none yet. Raises PilotError where it is no number."""
    path = workspace.root / "VERSION"
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    if not text.isdecimal():
        raise PilotError(path, repr(text[:40]), "a whole number", f"Write {WORKSPACE_VERSION} into it.")
    return int(text)


def check_writable(workspace: Workspace) -> None:
    """Raise PilotError for a workspace that a newer TrainPilot has written: it can be read, and nothing more."""
    version = workspace_version(workspace)
    if version is not None and version > WORKSPACE_VERSION:
        raise PilotError(
            workspace.root / "VERSION",
            f"workspace version {version}; it opens read-only",
            f"versions up to {WORKSPACE_VERSION} for writing",
            "Use the newer TrainPilot that wrote it, or another workspace (PILOT_WORKSPACE). Nothing was changed.",
        )


def seed(template: Path, workspace: Workspace, *, restore: bool = False) -> Seeding:
    """Bring the template's files into the workspace without changing anything that a person wrote.

    restore: bring back files of the template that a person deleted. Raises PilotError where the template does not
    exist or the workspace is newer than this program. Interrupted, it can be run again.
    """
    if not template.is_dir():
        raise PilotError("template", template, "an existing folder", "Name the project's workspace-template folder.")
    check_writable(workspace)
    memories = _read_record(workspace)
    done = Seeding()
    for folder in _FOLDERS:
        (workspace.root / folder).mkdir(parents=True, exist_ok=True)
    for source in sorted(path for path in template.rglob("*") if path.is_file()):
        name = source.relative_to(template).as_posix()
        if name == "VERSION":
            continue
        memory = memories.setdefault(name, _Memory())
        _seed_file(source, workspace.root / name, name, memory, done, restore)
    _write_record(workspace, memories)
    if workspace_version(workspace) is None:
        _write(workspace.root / "VERSION", f"{WORKSPACE_VERSION}\n".encode(), 0o644)
    return done


def _seed_file(source: Path, target: Path, name: str, memory: _Memory, done: Seeding, restore: bool) -> None:
    new = _hash(source)
    if not os.path.lexists(target):
        if memory.seeded is not None and not restore:
            done.deleted.append(name)
            return
        _copy(source, target)
        done.created.append(name)
        memory.seeded = new
        return
    # A link, or a folder in a file's place, is a person's doing: it counts as edited.
    present = _hash(target) if target.is_file() and not target.is_symlink() else None
    if present == new:
        memory.seeded = new
    elif present is not None and present == memory.seeded:
        _copy(source, target)
        done.upgraded.append(name)
        memory.seeded = new
    elif new not in (memory.seeded, memory.offered):
        beside = _free_name(target, memory.offered)
        _copy(source, beside)
        done.beside.append(name.removesuffix(target.name) + beside.name)
        memory.offered = new


def _free_name(target: Path, offered: str | None) -> Path:
    """`name.new`, unless a person has edited the one offered before: then `name.new.2` and so on."""
    number = 1
    while True:
        beside = target.with_name(f"{target.name}.new" + (f".{number}" if number > 1 else ""))
        if not os.path.lexists(beside) or (beside.is_file() and _hash(beside) == offered):
            return beside
        number += 1


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    _write(target, source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)


def _write(target: Path, content: bytes, mode: int) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one. The umask applies to the mode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(target)


def _read_record(workspace: Workspace) -> dict[str, _Memory]:
    path = workspace.root / _RECORD
    try:
        files = json.loads(path.read_text())["files"]
        return {name: _Memory(entry["seeded"], entry["offered"]) for name, entry in files.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_name(f"{path.name}.broken")
        raise PilotError(
            path,
            f"not readable ({error})",
            "the JSON that seeding wrote",
            f"Rename it to {aside.name}; every file that differs from the template then counts as edited.",
        ) from error


def _write_record(workspace: Workspace, memories: dict[str, _Memory]) -> None:
    files = {name: {"seeded": entry.seeded, "offered": entry.offered} for name, entry in sorted(memories.items())}
    text = json.dumps({"schema": 1, "files": files}, indent=1) + "\n"
    _write(workspace.root / _RECORD, text.encode(), 0o644)


def main() -> int:
    """`python -m trainpilot.template TEMPLATE WORKSPACE [--restore]`."""
    parser = argparse.ArgumentParser(prog="python -m trainpilot.template", description="Seed a workspace.")
    parser.add_argument("template", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--restore", action="store_true", help="bring back files of the template that were deleted")
    args = parser.parse_args()
    workspace = Workspace(args.workspace.expanduser().resolve())
    from trainpilot.guides.tree import grow

    try:
        done = seed(args.template, workspace, restore=args.restore)
        grow(workspace)
    except PilotError as error:
        print(error.text(), file=sys.stderr)
        return int(error.exit_code)
    print(f"workspace {workspace.root}: {done.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
