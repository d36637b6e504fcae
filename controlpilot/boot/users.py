"""The users of the pod: pilot gets the id that owns the volume, so that files on it stay changeable from outside.

panel and gateway keep the ids of the image. The group pilot, which all three share, keeps its id too, unless the volume
belongs to a group of its own: then it takes that one.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controlpilot.boot.report import Report

PILOT, PANEL, GATEWAY = "pilot", "panel", "gateway"


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


def follow(root: Path, report: Report, call: Callable[[list[str]], object] | None = None) -> User:
    """Give pilot the volume's ids where they are anybody's but root's, or ours. Returns pilot."""
    run = call or (lambda command: subprocess.run(command, check=True, capture_output=True, text=True))
    uid, gid = owner(root)
    present = user(PILOT)
    ours = {user(PANEL).uid, user(GATEWAY).uid, user(PANEL).gid}
    try:
        if gid not in (0, present.gid) and gid not in ours:
            run(["groupmod", "--non-unique", "--gid", str(gid), PILOT])
        if uid not in (0, present.uid) and uid not in ours:
            # usermod would change the owners of the whole home folder by itself; that folder is small.
            run(["usermod", "--non-unique", "--uid", str(uid), PILOT])
    except subprocess.CalledProcessError as error:
        report.problem("users", f"pilot cannot take the volume's id {uid}: {str(error.stderr).strip()}")
    now = user(PILOT)
    why = "the owner of the volume" if now.uid == uid else f"the volume belongs to {'root' if uid == 0 else uid}"
    report.ok("users", f"pilot is {now.uid}:{now.gid} ({why})")
    return now
