"""How much memory and CPU this container may use, and uses: control groups, version 2 and 1. Used by telemetry.

In a pod the machine's own numbers mislead: it may show 500 GiB and 128 cores where the pod has 60 GiB and 16.
Where no group sets a limit, `None` says so and telemetry shows the machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# Version 1 writes "no limit" as the largest multiple of a page in 63 bits.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Group:
    """One controller of one control group. Files are read anew at every call; None: not told."""

    folder: Path
    version: int

    def memory_limit(self) -> int | None:
        """Bytes that may be used."""
        limit = _number(self.folder / ("memory.max" if self.version == 2 else "memory.limit_in_bytes"))
        return None if limit is None or limit >= _NO_LIMIT else limit

    def memory_used(self) -> int | None:
        """Bytes in use, without file pages that the kernel gives back when they are needed."""
        used = _number(self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes"))
        key = "inactive_file" if self.version == 2 else "total_inactive_file"
        return None if used is None else max(0, used - (_stat(self.folder / "memory.stat", key) or 0))

    def cores(self) -> float | None:
        """Cores' worth of time that may be used."""
        if self.version == 2:
            quota, _, period = (_text(self.folder / "cpu.max") or "max").partition(" ")
        else:
            quota = _text(self.folder / "cpu.cfs_quota_us") or "-1"
            period = _text(self.folder / "cpu.cfs_period_us") or "100000"
        if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
            return None
        return int(quota) / int(period)

    def cpu_seconds(self) -> float | None:
        """CPU time used since the group was made."""
        if self.version == 2:
            microseconds = _stat(self.folder / "cpu.stat", "usage_usec")
            return None if microseconds is None else microseconds / 1e6
        for name in ("cpuacct.usage", "../../cpuacct/cpuacct.usage"):
            if (nanoseconds := _number(self.folder / name)) is not None:
                return nanoseconds / 1e9
        return None


def memory_group(system: Path = SYSTEM, own: Path = OWN) -> Group | None:
    """The group whose memory limit binds this process: the smallest on the way up; None where there is no limit."""
    found = [(limit, group) for group in _groups("memory", system, own) if (limit := group.memory_limit()) is not None]
    return min(found, key=lambda one: one[0])[1] if found else None


def cpu_group(system: Path = SYSTEM, own: Path = OWN) -> Group | None:
    """The group whose CPU limit binds this process; None where there is none."""
    found = [(cores, group) for group in _groups("cpu", system, own) if (cores := group.cores()) is not None]
    return min(found, key=lambda one: one[0])[1] if found else None


def cores_allowed(group: Group | None) -> float:
    """Cores this process may use: those it may run on, and the group's quota."""
    here = float(len(os.sched_getaffinity(0)))
    quota = group.cores() if group else None
    return min(here, quota) if quota else here


def _groups(controller: str, system: Path, own: Path) -> list[Group]:
    """The groups of this process that have a controller, from its own up to the top that is visible here.

    In a container the path in /proc may be the host's, while the folder seen here is the container's own: then only
    the top exists, and it is the right one.
    """
    version, path = 2, ""
    for line in (_text(own) or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, place = rest.partition(":")
        if controller in names.split(","):
            version, path = 1, place
            break
        if number == "0" and not names:
            path = place
    top = system / controller if version == 1 else system
    here = top / path.strip("/")
    return [
        Group(folder, version) for folder in (here, *here.parents) if folder.is_relative_to(top) and folder.is_dir()
    ]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None  # this kernel or this version does not have the file: not told


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdecimal() else None


def _stat(path: Path, key: str) -> int | None:
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return None
