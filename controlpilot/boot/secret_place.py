"""Where the panel's secrets live: on the volume where it keeps them from others, else in the container, said so.

Also the password of the first start, and the access tokens that the container was given: both go from the environment
into that folder, so that no service's environment needs them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from controlpilot.auth import passwords
from controlpilot.boot.report import Report
from controlpilot.boot.users import User
from controlpilot.boot.volume import Volume
from controlpilot.hub_tokens import HubTokens
from trainpilot.errors import PilotError
from trainpilot.runs.secrets import TOKENS

OUTSIDE = Path("/var/lib/pilot/secrets")


def choose(root: Path, volume: Volume, panel: User, report: Report, outside: Path = OUTSIDE) -> Path:
    """The secrets folder, made, 0700 and panel's. What a volume that cannot be written holds is copied."""
    inside = root / "config" / "panel"
    if volume.writable and volume.respects_owners:
        if _trusted(inside, panel):
            _own(inside, panel)
            return inside
        report.problem("secrets", f"{inside} belongs to somebody else and is not used; look at it, then remove it")
    _own(outside, panel)
    if volume.answers and not volume.writable:
        _copy(inside, outside, panel)
    why = "cannot be written" if not volume.writable else "does not keep files from other users"
    report.note("secrets", f"in the container, because the volume {why}: password and tokens are gone with it")
    return outside


def _trusted(folder: Path, panel: User) -> bool:
    """Whether it may be used: not there yet, or a real folder of panel's or root's."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return True
    return not folder.is_symlink() and folder.is_dir() and found.st_uid in (panel.uid, 0)


def _own(folder: Path, panel: User) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, panel.uid, panel.gid)
    folder.chmod(0o700)


def _copy(source: Path, target: Path, panel: User) -> None:
    """The password of a volume that has become read-only or full stays valid."""
    try:
        files = [path for path in source.iterdir() if path.is_file() and not path.is_symlink()]
    except OSError:
        return
    for path in files:
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
            os.chown(target / path.name, panel.uid, panel.gid)
            (target / path.name).chmod(0o600)


def fill(folder: Path, environ: MutableMapping[str, str], panel: User, report: Report) -> None:
    """The password (printed once where it is new) and the tokens, then out of the environment."""
    try:
        prepared = passwords.prepare(folder, environ)
    except PilotError as error:
        report.problem("password", f"{error.where}: {error.given}; {error.remedy} The one before stays valid")
        if not passwords.Passwords(folder).is_set:
            prepared = passwords.prepare(folder, {})
            _tell(prepared, report)
    else:
        _tell(prepared, report)
    _save_tokens(folder, environ, report)
    passwords.forget_in(environ)
    for path in folder.iterdir():
        os.chown(path, panel.uid, panel.gid, follow_symlinks=False)


def _tell(prepared: passwords.Prepared, report: Report) -> None:
    if prepared.generated is None:
        report.ok(
            "password", {"environment": "as the container was given it"}.get(prepared.source, "the one set before")
        )
        return
    report.ok("password", "a new one, shown this once; change it on the Settings page")
    # Not a line of the report: that one is kept in a file.
    print(f"\n    The panel's password:  {prepared.generated}\n", flush=True)


def _save_tokens(folder: Path, environ: Mapping[str, str], report: Report) -> None:
    store = HubTokens(folder, {})
    present = store.values()
    for name in TOKENS:
        given = environ.get(name)
        if not given or present.get(name) == given:
            continue
        try:
            store.save(name, given)
            report.ok("tokens", f"{name} is kept for downloads")
        except PilotError as error:
            report.problem("tokens", f"{name} is not used: {error.given}; {error.remedy}")
