"""What the volume under /workspace can do, tried rather than asked: write, rename, links, modes, owners, flock, fsync.

Each trial happens in a process of its own with a limit of time: a network volume that stalls must not hold up the boot.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from controlpilot.boot.report import Report
from trainpilot.runs.locks import flock_works

PATIENCE = 10.0  # seconds for all trials; a healthy volume needs a few milliseconds
GIB = 2**30
LEAST_FREE = 10 * GIB
SLOW_FSYNC = 0.5  # seconds
NETWORK = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "lustre", "beegfs", "gpfs", "glusterfs", "virtiofs", "mfs")
TRIED = b"tried by boot\n" * 1024


@dataclass
class Volume:
    """What was found. Everything that was not tried counts as not working."""

    answers: bool = False  # within PATIENCE
    writable: bool = False
    why: str = ""  # it is not: the system's words
    owners: bool = False  # a file can be given to another user, and keeps what it is given
    modes: bool = False  # chmod takes hold
    rename: bool = False
    symlink: bool = False
    flock: bool = False
    fsync_seconds: float = 0.0
    free: int = 0
    kind: str = ""  # of file system

    @property
    def network(self) -> bool:
        return self.kind.startswith(NETWORK)

    @property
    def respects_owners(self) -> bool:
        return self.owners and self.modes


def look(root: Path) -> Volume:
    """Try everything on the volume of `root`, as root, leaving nothing behind."""
    answer = within(PATIENCE, lambda: json.dumps(asdict(_tried(root))))
    if answer is None:
        return Volume(why=f"no answer within {PATIENCE:.0f} s", kind=kind_of(root))
    return Volume(**json.loads(answer))


def say(report: Report, volume: Volume, root: Path) -> None:
    """One line for each finding, with what is done instead."""
    if not volume.answers:
        report.problem("volume", f"{root} gives {volume.why}; the panel starts without it. Check the mount")
        return
    if not volume.writable:
        report.problem("volume", f"{root} cannot be written: {volume.why}; runs can be looked at, not started")
        return
    size = f"{volume.free / GIB:.1f} GiB free"
    report.ok("volume", f"{root}, {volume.kind or 'unknown file system'}{', over a network' if volume.network else ''}")
    if volume.free < LEAST_FREE:
        report.problem(
            "disk", f"{size}: a base model takes 2 to 24 GiB and checkpoints more; make room or a larger volume"
        )
    else:
        report.ok("disk", size)
    for works, what, good, otherwise in (
        (volume.flock, "flock", "keeps processes apart", "does not keep processes apart: locks on local disk are used"),
        (volume.rename, "rename", "replaces files whole", "fails: saving is not safe here, take another volume"),
        (volume.symlink, "symlink", "works", "fails: finished LoRAs are copied instead of linked"),
        (volume.modes, "chmod", "takes hold", "is ignored: what others may read is the mount's choice"),
        (volume.owners, "owners", "are kept", "are ignored: files belong to whom the mount names"),
    ):
        if works:
            report.ok(what, good)
        elif what == "rename":
            report.problem(what, otherwise)
        else:
            report.note(what, otherwise)
    slow = volume.fsync_seconds > SLOW_FSYNC
    said = f"{volume.fsync_seconds * 1000:.0f} ms for a small file"
    report.add("note" if slow else "ok", "fsync", f"{said}; saving a checkpoint will take its time" if slow else said)


def within(seconds: float, work: Callable[[], str], start: Callable[[], None] | None = None) -> str | None:
    """The text that `work` returns in a child process, or None where it has not ended by then (it is then killed, or
    left behind where it hangs in the kernel). start: called first in the child, to become another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            if start is not None:
                start()
            os.write(writing, work().encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    parts: list[bytes] = []
    deadline = time.monotonic() + seconds
    ended = False
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while not ended and select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = pipe.read(65536)
            ended = not part
            parts.append(part)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)
        return None
    os.waitpid(child, 0)
    return b"".join(parts).decode() or None


def _tried(root: Path) -> Volume:
    found = Volume(answers=True, kind=kind_of(root))
    try:
        found.free = shutil.disk_usage(root).free
        root.mkdir(parents=True, exist_ok=True)
        place = root / f".boot-{os.getpid()}"
        place.mkdir()
    except OSError as error:
        found.why = _words(error)
        return found
    try:
        _try_in(place, found)
    except OSError as error:
        found.why = _words(error)
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    return found


def _try_in(place: Path, found: Volume) -> None:
    one, other = place / "one", place / "two"
    began = time.monotonic()
    # Where a quota is used up this fails (EDQUOT), whatever the disk says is free.
    with one.open("wb") as file:
        file.write(TRIED)
        file.flush()
        os.fsync(file.fileno())
    found.fsync_seconds = time.monotonic() - began
    found.writable = True
    other.write_bytes(b"")
    found.rename = _works(lambda: one.replace(other)) and other.read_bytes() == TRIED
    found.symlink = _works(lambda: one.symlink_to("two")) and one.is_symlink()
    found.modes = _works(lambda: other.chmod(0o600)) and other.stat().st_mode & 0o777 == 0o600
    found.owners = _works(lambda: os.chown(other, 4321, 4321)) and other.stat().st_uid == 4321
    found.flock = flock_works(place)


def _works(trial: Callable[[], object]) -> bool:
    try:
        trial()
    except OSError:
        return False
    return True


def _words(error: OSError) -> str:
    if error.errno == errno.EDQUOT:
        return "the quota is used up (EDQUOT); make room, or raise it"
    if error.errno == errno.ENOSPC:
        return "the disk is full; make room"
    if error.errno == errno.EROFS:
        return "it is mounted read-only; mount it without :ro"
    return error.strerror or str(error)


def kind_of(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The file system's kind, as the kernel names it: ext4, nfs4, fuse.sshfs. "" where it cannot be told."""
    best, kind = "", ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        inside = point == "/" or str(root) == point or str(root).startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
