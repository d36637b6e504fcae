"""The process that unpacks an uploaded archive: `python -m controlpilot.unpacking ARCHIVE FOLDER`.

Caps on count, size, ratio and depth; names are checked like those of uploaded files; links and anything that is no
plain file refuse the whole archive. It prints one line that says why, and ends with 1, when it refuses; the caller
throws the folder away. Used by `controlpilot.uploads`.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from controlpilot.uploads import BLOCK, ENDINGS, MOST_BYTES, MOST_FILES, RESERVE, safe_path
from trainpilot.datasets.layouts import printable
from trainpilot.errors import PilotError

MEMORY = 2 << 30
MOST_RATIO = 200  # a picture hardly shrinks; a thousandfold is a bomb
_IGNORED = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")


def unpack(archive: Path, folder: Path) -> int:
    """Unpack pictures and captions; returns how many files. Raises PilotError, and leaves what it wrote so far."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if not one.is_dir() and not _ignored(one.filename)]
            names = _checked(members, archive.stat().st_size)
            _room(folder, sum(one.file_size for one in members))
            for member, name in zip(members, names, strict=True):
                _write(opened, member, folder / name)
            return len(members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as problem:
        raise PilotError("archive", f"is broken: {problem}", "a whole zip file", "Pack it anew.") from problem


def _ignored(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return name.startswith(_IGNORED[0]) or last in _IGNORED[1:] or last.startswith("._")


def _checked(members: list[zipfile.ZipInfo], packed: int) -> list[PurePosixPath]:
    if len(members) > MOST_FILES:
        raise PilotError("archive", f"{len(members)} files", f"at most {MOST_FILES}", "Split it.")
    total = sum(one.file_size for one in members)
    if total > MOST_BYTES or total > max(packed, 1 << 20) * MOST_RATIO:
        raise PilotError("archive", f"{packed} bytes that say they hold {total}", "pictures", "Pack it anew.")
    names = []
    for one in members:
        mode = one.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise PilotError(
                "archive", f"{printable(one.filename)} is a link or device", "plain files", "Leave it out."
            )
        if one.flag_bits & 1:
            raise PilotError("archive", "is encrypted", "a zip without a password", "Pack it without one.")
        name = safe_path(one.filename)
        if name.suffix.lower() not in ENDINGS - {".zip"}:
            raise PilotError("archive", f"holds {printable(one.filename)}", ", ".join(sorted(ENDINGS)), "Leave it out.")
        names.append(name)
    folded = [str(name).casefold() for name in names]
    if len(set(folded)) < len(folded):
        raise PilotError("archive", "holds one name twice", "every name once", "Pack it anew.")
    return names


def _room(folder: Path, size: int) -> None:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if size + RESERVE > free:
        raise PilotError("disk", f"{free} bytes free", f"{size + RESERVE} for the archive", "Free space.")


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    # "x" never follows a link and never replaces what an upload brought under the same name.
    with opened.open(member) as source, target.open("xb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise PilotError("archive", f"{printable(member.filename)} is longer than it says", "an honest zip", "")
            file.write(block)


def main() -> int:
    """Unpack argv[1] into argv[2]."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    except PilotError as problem:
        print(f"{problem.given}".replace("\n", " ")[:500])
        return 1
    except FileExistsError as problem:
        print(f"{Path(problem.filename).name} is there twice")
        return 1
    except OSError as problem:
        print(problem.strerror or str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
