"""Starts a third-party service: `python -m controlpilot.services.launch CONF -- PROGRAM ARGUMENT...`

supervisord runs it as `pilot`. It makes the folders, links and first settings that the service's file names, says who
has its port where somebody has, and then becomes the program: the process id is the program's own.
In every text {app} {data} {workspace} {run} {port} stand for the service's places.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import psutil

from controlpilot.services import FOLDER, Service, app_folder, apps, read, run_folder
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

NOT_STARTED = 78  # EX_CONFIG: supervisord shows the lines above it


def main(arguments: list[str]) -> int:
    """Becomes the program; returns only where it cannot, with the reason on stderr."""
    if len(arguments) < 3 or arguments[1] != "--":
        print("usage: python -m controlpilot.services.launch CONF -- PROGRAM ARGUMENT...", file=sys.stderr)
        return 2
    service = read(Path(arguments[0]))
    try:
        places = prepare(service)
    except PilotError as error:
        print(error.text(), file=sys.stderr)
        return NOT_STARTED
    command = [fill(word, places) for word in arguments[2:]]
    environ = {key: value for key, value in os.environ.items() if key != "PORT" and not key.startswith("SUPERVISOR_")}
    if service.path:
        environ["PATH"] = fill(service.path, places) + os.pathsep + environ.get("PATH", os.defpath)
    try:
        os.chdir(fill(service.directory or "{workspace}", places))
        os.execvpe(command[0], command, environ)
    except OSError as error:
        print(f"{service.label} cannot be started: {command[0]}: {error.strerror}", file=sys.stderr)
    return NOT_STARTED


def prepare(service: Service) -> dict[str, str]:
    """Folders, first settings, links, a free port. Returns what the placeholders stand for; raises PilotError."""
    if not service.installed:
        raise PilotError(
            service.label, "not installed", "an installed service", f"run: controlpilot services install {service.name}"
        )
    workspace = Workspace.find().root
    places = {
        "app": str(app_folder(service.name)),
        "data": str(apps() / service.name / "data"),
        "workspace": str(workspace),
        "run": str(run_folder()),
        "port": str(service.local_port or ""),
    }
    try:
        for folder in service.folders:
            Path(fill(folder, places)).mkdir(parents=True, exist_ok=True)
        for seed, target in service.seeds:
            _seed(FOLDER / "seeds" / seed, Path(fill(target, places)), places)
        for link, target in service.links:
            _link(Path(fill(link, places)), Path(fill(target, places)))
    except OSError as error:
        raise PilotError(
            service.label, f"{error.filename}: {error.strerror}", "folders that can be written", "check the volume"
        ) from error
    if service.local_port:
        refuse_taken(service.label, service.local_port)
    return places


def fill(text: str, places: dict[str, str]) -> str:
    """The text with its placeholders filled; other braces stay."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def refuse_taken(label: str, port: int) -> None:
    """Raises PilotError naming the port, and the process that listens there where it can be seen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return
        except OSError:
            holder = holder_of(port)
    raise PilotError(label, f"port {port} is taken by {holder}", "a free port", "stop that program, then start again")


def holder_of(port: int) -> str:
    """Who listens on a port: "python3 (process 123)", or "another process" where the system does not say."""
    try:
        listening = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        listening = []
    for one in listening:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            try:
                return f"{psutil.Process(one.pid).name()} (process {one.pid})"
            except psutil.NoSuchProcess:
                continue
    return "another process"


def _seed(source: Path, target: Path, places: dict[str, str]) -> None:
    """Writes a first settings file; one that is there is a person's and stays."""
    text = fill(source.read_text("utf-8"), places)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
        print(f"wrote {target}: first settings, yours to edit", flush=True)
    except FileExistsError:
        return


def _link(link: Path, target: Path) -> None:
    """A link to the workspace in the program's folder. What the program brought there is moved beside, not removed."""
    if link.is_symlink():
        if link.readlink() == target:
            return
        link.unlink()
    elif link.exists():
        aside = link.with_name(link.name + ".upstream")
        if aside.exists():
            raise PilotError(str(link), "a folder where a link belongs", "nothing there", f"move it, {aside} exists")
        link.rename(aside)
        print(f"moved {link} to {aside.name}", flush=True)
    link.symlink_to(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
