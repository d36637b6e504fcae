"""`python -m controlpilot.boot`: the order in which the pod comes up."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from controlpilot.boot import compiled, folders, keeper, machine, secret_place, seeding, sshd, users, volume
from controlpilot.boot.report import Report
from controlpilot.settings import Settings
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

CODE = Path(__file__).resolve().parent.parent.parent
RUN, LOGS = Path("/run/pilot"), Path("/var/log/pilot")


def main() -> int:
    if os.getuid() != 0:
        print("boot: needs root inside the container; start it without --user", file=sys.stderr)
        return 2
    os.umask(0o022)
    environ = dict(os.environ)
    report = Report()
    workspace = Workspace(Path(environ.get("PILOT_WORKSPACE") or "/workspace"))
    root = workspace.root

    machine.check(report)
    found = volume.look(root)
    volume.say(report, found, root)
    pilot, shared = users.user(users.PILOT), users.user(users.PILOT).gid
    if found.answers:
        pilot, shared = users.follow(root, report)
    panel, gateway = users.user(users.PANEL), users.user(users.GATEWAY)
    folders.local(RUN, LOGS, pilot, panel, gateway)
    folders.workspace(root, found, pilot, panel, shared, LOGS, report)
    secrets = secret_place.choose(root, found, panel, report)
    secret_place.fill(secrets, environ, panel, report)
    seeding.fill(CODE / "workspace-template", workspace, found, pilot, report)

    given = compiled.environment(workspace, secrets, found, environ, report)
    compiled.write(workspace, _settings(given, workspace, secrets, report), RUN, given, report)
    sshd.prepare(environ, RUN, LOGS, report)
    report.write(RUN)
    os.environ.clear()
    os.environ.update(given)
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(CODE / "supervisord.conf")]
    return keeper.keep(command, given)


def _settings(given: dict[str, str], workspace: Workspace, secrets: Path, report: Report) -> Settings:
    """The panel's settings, with a variable that cannot be used left out rather than the whole pod."""
    try:
        return Settings.find(given)
    except PilotError as error:
        report.problem("settings", f"{error.where}: {error.given}; {error.remedy} It is left out")
        for name in ("PILOT_URL_TEMPLATE", "PILOT_PREFIX", "PILOT_TRUSTED_PROXIES", "PILOT_PORT"):
            given.pop(name, None)
        return dataclasses.replace(Settings(workspace, secrets, RUN), socket=RUN / "panel.sock")


if __name__ == "__main__":
    sys.exit(main())
