"""Where the panel's secrets live: on the volume where it keeps them from others, else in the container, said so.

Also the password of the first start, and the access tokens that the container was given: both go from the environment
into that folder, so that no service's environment needs them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from controlpilot.auth import passwords, secret_files, sessions
from controlpilot.boot.report import Level, Report
from controlpilot.boot.users import User
from controlpilot.boot.volume import Volume, within
from controlpilot.hub_tokens import HubTokens
from controlpilot.pod_stop import PodStop
from trainpilot.errors import PilotError
from trainpilot.runs.secrets import TOKENS

OUTSIDE = Path("/var/lib/pilot/secrets")
PATIENCE = 20.0  # seconds; a hash takes a tenth of one
ROOM = 4 * 2**20  # bytes; a login has to be written down


def choose(root: Path, volume: Volume, panel: User, report: Report, outside: Path = OUTSIDE) -> Path:
    """The secrets folder, made, 0700 and panel's. What a volume that cannot be written holds is copied."""
    inside = root / "config" / "panel"
    full = volume.writable and volume.free < ROOM
    if volume.writable and volume.respects_owners and not full:
        if _trusted(inside, panel):
            _own(inside, panel)
            return inside
        report.problem("secrets", f"{inside} belongs to somebody else and is not used; look at it, then remove it")
    _own(outside, panel)
    if volume.answers and (full or not volume.writable):
        _copy(inside, outside, panel)
    why = "is full" if full else "does not keep files from other users" if volume.writable else "cannot be written"
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
    """The password (printed once where it is new) and the tokens, then out of the environment.

    As panel: its files are believed only where they are its own.
    """
    given = dict(environ)
    if path := given.pop("PILOT_PASSWORD_FILE", None):
        try:
            given["PILOT_PASSWORD"] = Path(path).read_text("utf-8").rstrip("\r\n")  # root may read what panel may not
        except (OSError, UnicodeDecodeError) as error:
            report.problem("password", f"PILOT_PASSWORD_FILE cannot be read: {error}; mount a text file there")
    answer = within(PATIENCE, lambda: _filled(folder, given), panel.become)
    passwords.forget_in(environ)
    if answer is None:
        report.problem("password", "cannot be set: its folder cannot be written, or hangs; nobody can log in")
        return
    told = json.loads(answer)
    for level, what, text in told["lines"]:
        report.add(level, what, text)
    if told["generated"]:
        # Not a line of the report: that one is kept in a file.
        print(f"\n    The panel's password:  {told['generated']}\n", flush=True)


def _filled(folder: Path, given: Mapping[str, str]) -> str:
    lines: list[tuple[Level, str, str]] = []
    try:
        prepared = passwords.prepare(folder, given)
    except PilotError as error:
        lines.append(("problem", "password", f"{error.where}: {error.given}; {error.remedy} It is not used"))
        prepared = passwords.prepare(folder, {})
    sources = {"environment": "as the container was given it", "saved": "the one set before"}
    lines.append(
        ("ok", "password", sources.get(prepared.source, "a new one, shown this once; the Settings page changes it"))
    )
    secret_files.key(folder / sessions.KEY)  # while there is room: the volume may be full at the first log-in
    store = HubTokens(folder, {})
    present = store.values()
    for name in TOKENS:
        token = given.get(name)
        if not token or present.get(name) == token:
            continue
        try:
            store.save(name, token)
            lines.append(("ok", "tokens", f"{name} is kept for downloads"))
        except PilotError as error:
            lines.append(("problem", "tokens", f"{name} is not used: {error.given}; {error.remedy}"))
    for name in PodStop(folder, {}).keep_given(given):
        lines.append(("ok", "pod", f"{name} is kept: the Settings page says what may stop this pod with it"))
    return json.dumps({"lines": lines, "generated": prepared.generated})
