"""The folders that processes meet in: run folder, logs, and the workspace's own, with the rights that keep users apart.

Nothing that a person put into the workspace changes its owner. Only the folders that the contract names are made, and
given to the shared group, one by one.
"""

from __future__ import annotations

import os
from pathlib import Path

from controlpilot.boot.report import Report
from controlpilot.boot.users import User
from controlpilot.boot.volume import Volume

SHARED = 0o2775  # setgid: what is made inside belongs to the shared group
# Nobody may rename or remove what is not his: pilot could otherwise put a folder of its own in the place of panel's.
SHARED_STICKY = 0o3775
WORKSPACE = (
    "datasets", "datasets/images", "models", "models/loras", "outputs", "jobs", "logs", "logs/tb", "cache", "apps",
    "config/profiles", "config/services", "lora_training",
)  # fmt: skip


def local(run: Path, logs: Path, pilot: User, panel: User, gateway: User) -> None:
    """Run folder and logs, on the container's own disk. Raises OSError: without them nothing can work."""
    # The panel makes its socket here, but cannot replace what root's supervisord reads.
    _make(run, 0, panel.gid, 0o1775)
    _make(run / "services", pilot.uid, pilot.gid, 0o2770)
    _make(run / "gateway", gateway.uid, gateway.gid, 0o700)
    _make(run / "supervisor.d", 0, 0, 0o755)
    # root's: supervisord opens the files in it as root, and must not be led elsewhere by a link.
    _make(logs, 0, 0, 0o755)
    _make(Path("/run/lock/trainpilot"), 0, 0, 0o1777)
    for name in ("supervisor.sock", "panel.sock", "services/jupyter.sock"):
        (run / name).unlink(missing_ok=True)  # of the container's life before


def workspace(root: Path, volume: Volume, pilot: User, panel: User, shared: int, logs: Path, report: Report) -> None:
    """The workspace's own folders, where the volume can be written. shared: the group of all three users."""
    if not volume.writable:
        return
    try:
        top = root.stat()
        if volume.respects_owners:
            # A volume of root's stays root's: then pilot cannot rename what lies in it.
            os.chown(root, -1, shared)
            root.chmod(SHARED_STICKY if top.st_uid == 0 else top.st_mode & 0o7777 | 0o2070)
        _shared(root / "config", panel.uid, shared, SHARED_STICKY, volume)
        for name in WORKSPACE:
            _shared(root / name, pilot.uid, shared, SHARED, volume)
        _link(root / "logs" / "services", logs)
    except OSError as error:
        report.problem("workspace", f"{error.filename}: {error.strerror}; its folders are not complete")
        return
    if not _pilot_writes(root, pilot):
        report.problem(
            "workspace",
            f"belongs to {top.st_uid} and the user pilot ({pilot.uid}) cannot write it; mount it for that user, "
            f"for example with uid={pilot.uid},gid={pilot.gid}",
        )


def _make(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, uid, gid)
    path.chmod(mode)


def _shared(path: Path, uid: int, gid: int, mode: int, volume: Volume) -> None:
    """One folder of ours; never one that is a link, which a person put there."""
    if path.is_symlink():
        return
    path.mkdir(exist_ok=True)
    if not volume.respects_owners:
        return
    found = path.stat()
    foreign = found.st_uid not in (uid, 0) and mode != SHARED_STICKY
    wanted = (found.st_uid if foreign else uid, gid)
    if (found.st_uid, found.st_gid) != wanted:
        os.chown(path, *wanted)
    if found.st_mode & 0o7777 & mode != mode or (found.st_uid, found.st_gid) != wanted:
        path.chmod(found.st_mode & 0o7777 | mode)


def _link(link: Path, target: Path) -> None:
    if not os.path.lexists(link):
        try:
            link.symlink_to(target)
        except OSError:
            return  # a volume without links: people find the logs in the panel


def _pilot_writes(root: Path, pilot: User) -> bool:
    found = root.stat()
    mode = found.st_mode
    if found.st_uid == pilot.uid:
        return bool(mode & 0o200)
    if found.st_gid in (pilot.gid, *pilot.groups):
        return bool(mode & 0o020)
    return bool(mode & 0o002)
