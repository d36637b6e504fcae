"""The users of the pod: pilot gets the id that owns the volume, so that files on it stay changeable from outside.

panel and gateway keep the ids of the image. What all three share is a group: pilot, or the volume's own where it has
one; the group pilot keeps its id, because services that are part of the image belong to it.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from controlpilot.boot.report import Report

PILOT, PANEL, GATEWAY = "pilot", "panel", "gateway"
# Groups below are the system's: a member of some of them (shadow, disk) could read what nobody should.
FIRST_GROUP = 1000
USERS = 100  # the one of them that storage boxes give to everybody


@dataclass(frozen=True)
class User:
    """A user as the kernel knows it. groups: further ones."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """For good, in a child process: groups, ids, umask."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)
        os.umask(0o002)


def user(name: str) -> User:
    """Raises KeyError where the image lacks it."""
    entry = pwd.getpwnam(name)
    groups = tuple({entry.pw_gid, *(group.gr_gid for group in grp.getgrall() if name in group.gr_mem)})
    return User(name, entry.pw_uid, entry.pw_gid, groups)


def owner(root: Path) -> tuple[int, int]:
    """uid and gid of the volume; (0, 0) where it does not say."""
    try:
        found = root.stat()
    except OSError:
        return 0, 0
    return found.st_uid, found.st_gid


def follow(root: Path, report: Report) -> tuple[User, int]:
    """Give pilot the volume's id where it is anybody's but root's, or ours. Returns pilot and the shared group."""
    uid, gid = owner(root)
    present = user(PILOT)
    shared = present.gid
    try:
        if uid not in (0, present.uid, user(PANEL).uid, user(GATEWAY).uid):
            # usermod gives the home folder along; it is small.
            _call("usermod", "--non-unique", "--uid", str(uid), PILOT)
        if (gid >= FIRST_GROUP and gid != present.gid) or gid == USERS:
            _join(gid)
            shared = gid
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        report.problem("users", f"pilot cannot take the volume's ids {uid}:{gid}: {said}")
    now = user(PILOT)
    why = "the owner of the volume" if now.uid == uid else f"the volume belongs to {'root' if uid == 0 else uid}"
    report.ok("users", f"pilot is {now.uid} ({why}), the shared group is {shared}")
    return now, shared


def _join(gid: int) -> None:
    """Make the three users members of the volume's group."""
    try:
        name = grp.getgrgid(gid).gr_name
    except KeyError:
        name = "volume"
        _call("groupadd", "--gid", str(gid), name)
    for member in (PILOT, PANEL, GATEWAY):
        _call("usermod", "--append", "--groups", name, member)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
