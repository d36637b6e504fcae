"""Kernel locks: one process runs a run, one run uses a device. The kernel lets go of them whatever way a process ends.

A run's lock is `run.lock` in its folder, trusted only where flock is found to work on that volume, and beside it a lock
on local disk. A device's lock is on local disk, named after the device ("GPU-..." or "cpu"). Used by the run folder,
the verbs that run something, and the worker.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from trainpilot.runs.process import Identity

FOLDER_VARIABLE = "PILOT_LOCKS"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EROFS, errno.EACCES, errno.EPERM}


def lock_folder() -> Path:
    """The local folder of locks: PILOT_LOCKS, else /run/lock/trainpilot, else the same in the temporary folder."""
    given = os.environ.get(FOLDER_VARIABLE)
    for folder in [Path(given)] if given else [Path("/run/lock/trainpilot"), Path(tempfile.gettempdir(), "trainpilot")]:
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o1777)  # root's shell and the service's user meet here
        except OSError as error:
            problem = error
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        problem = PermissionError(errno.EACCES, "no permission to write", str(folder))
    raise problem


class FileLock:
    """An exclusive flock on one file, whose content says who holds it. Held until `release` or the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self, **about: Any) -> bool:
        """Try once, without waiting: True when this object holds the lock now. `about` is written into the file.

        Raises OSError where the file cannot be made or flock does not exist there.
        """
        if self._handle is not None:
            return True
        handle = self._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            os.close(handle)
            raise
        self._handle = handle
        text = json.dumps({"holder": Identity.own().as_dict(), **about}, default=str) + "\n"
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
        return True

    def _open(self) -> int:
        # Creation is exclusive: in a sticky folder the kernel refuses O_CREAT on a file that somebody else made.
        while True:
            try:
                return os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                pass
            try:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileExistsError:
                continue
            os.fchmod(handle, 0o666)
            return handle

    def works(self) -> bool:
        """Whether a held lock really keeps others out: some network volumes grant it to everybody."""
        other = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(other)
        return False

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def holder(self) -> dict[str, Any]:
        """What the present or last holder wrote: `holder` (an Identity as a dict) and what it said about itself."""
        try:
            value = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def free(self) -> bool:
        """Whether nobody holds it at this moment."""
        if self._handle is not None:
            return False
        if not self.path.exists():
            return True
        probe = FileLock(self.path)
        handle = probe._open()
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True


def device_lock(device: str) -> FileLock:
    """The lock of a device by its UUID, or of "cpu"."""
    return FileLock(lock_folder() / f"device-{re.sub(r'[^A-Za-z0-9_-]', '_', device)}.lock")


def flock_works(folder: Path) -> bool:
    """Whether flock keeps processes apart on the volume of `folder`; tried with a file that is removed again."""
    lock = FileLock(folder / f".flock-{os.getpid()}")
    try:
        return lock.acquire() and lock.works()
    except OSError:
        return False
    finally:
        lock.release()
        lock.path.unlink(missing_ok=True)


class FolderLock:
    """The lock of a folder that only one process may work in: on its volume where that works, and on local disk.

    `notes` says when the volume's lock was not trusted.
    """

    def __init__(self, path: Path) -> None:
        self.volume = FileLock(path)
        self.notes: list[str] = []

    @cached_property
    def local(self) -> FileLock:
        name = hashlib.sha256(os.fsencode(self.volume.path.resolve())).hexdigest()[:24]
        return FileLock(lock_folder() / f"folder-{name}.lock")

    @property
    def held(self) -> bool:
        return self.local.held

    def acquire(self) -> bool:
        """Try once; True when this process holds it now."""
        if self.local.held:
            return True
        if not self.local.acquire(folder=self.volume.path):
            return False
        try:
            taken = self.volume.acquire(folder=self.volume.path)
            if taken and not self.volume.works():
                self._distrust("does not keep others out")
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.local.release()
                raise
            taken = True
            self._distrust(error.strerror or str(error))
        if not taken:
            self.local.release()
        return taken

    def _distrust(self, why: str) -> None:
        self.notes.append(f"flock on {self.volume.path} {why}; only the lock on local disk keeps others out")

    def release(self) -> None:
        self.volume.release()
        self.local.release()

    def free(self) -> bool:
        """Whether nobody holds it at this moment."""
        if not self.local.free():
            return False
        try:
            return self.volume.free()
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return True

    def holder(self) -> dict[str, Any]:
        return self.local.holder() or self.volume.holder()
