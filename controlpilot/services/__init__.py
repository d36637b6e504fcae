"""The pod's services: one `.conf` file each, found by a scan of this folder.

`[program:x]` is what supervisord reads, `[panel:x]` what we read: label, help, group, public port, where it listens,
health, traps. The panel and the command line show `services()`, the gateway routes by it, boot gives supervisord
`environment()` and `compile()`, and `services/launch.py` starts the programs.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controlpilot.services import own
from controlpilot.services.choices import choices
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

FOLDER = Path(__file__).parent
INSTALLED = "INSTALLED"  # the file that an installer writes last: it holds the version
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
KEYS = frozenset(
    "label help group port upstream health pinned install autostart directory path folders seeds links deny "
    "same_origin traps".split()
)


@dataclass(frozen=True)
class Service:
    """One service as the panel knows it. Texts keep their placeholders {app} {data} {workspace} {run} {port} where the
    launcher fills them; `upstream` is filled: "http://127.0.0.1:6006", "unix:/run/pilot/services/jupyter.sock" or None.
    """

    name: str
    label: str
    help: str
    group: str
    port: int | None = None  # public, at the gateway
    upstream: str | None = None
    health: str | None = None  # a path that answers 200 without a login
    pinned: bool = False  # cannot be stopped or disabled from the panel
    install: str | None = None  # scripts/services/<install>.sh; None: always there
    installed: bool = True
    autostart: bool = False  # as chosen, else as its file says
    own: bool = False  # a person's own, from config/services
    directory: str | None = None
    path: str | None = None  # a folder put before PATH
    folders: tuple[str, ...] = ()  # made before each start
    seeds: tuple[tuple[str, str], ...] = ()  # file of seeds/, target: written where there is none
    links: tuple[tuple[str, str], ...] = ()  # link, target
    deny: tuple[str, ...] = ()  # patterns of paths that the gateway refuses
    same_origin: tuple[str, ...] = ()  # patterns of paths that only the service's own pages may ask for
    traps: str = ""

    @property
    def program(self) -> str:
        """Its name in supervisord, without the group."""
        return f"own-{self.name}" if self.own else self.name

    @property
    def local_port(self) -> int | None:
        """The TCP port it listens on, where it does."""
        return int(self.upstream.rsplit(":", 1)[1]) if self.upstream and self.upstream.startswith("http:") else None


def apps() -> Path:
    """Where installers put services: a place that survives the container. `PILOT_APPS`, else /workspace/apps."""
    return Path(os.environ.get("PILOT_APPS") or Workspace.find().root / "apps")


def app_folder(name: str) -> Path:
    """The folder of an installed service: the surviving place first, then what the image was built with."""
    built = Path(os.environ.get("PILOT_BUILT_APPS") or "/opt/apps") / name
    kept = apps() / name
    return built if (built / INSTALLED).is_file() and not (kept / INSTALLED).is_file() else kept


def run_folder() -> Path:
    """Sockets and process ids: `PILOT_RUN`, else /run/pilot."""
    return Path(os.environ.get("PILOT_RUN") or "/run/pilot")


def read(conf: Path) -> Service:
    """The service of a file. Raises PilotError naming the file and the key that nobody reads."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    try:
        parser.read_string(conf.read_text("utf-8"), source=conf.name)
    except configparser.Error as error:
        raise PilotError(conf.name, str(error), "an INI file", "mend or remove the file") from error
    name = conf.stem
    wanted = {f"program:{name}", f"panel:{name}"}
    if not NAME.fullmatch(name) or set(parser.sections()) != wanted:
        raise PilotError(conf.name, parser.sections(), sorted(wanted), "one service, named as its file")
    said = parser[f"panel:{name}"]
    unknown = sorted(set(said) - KEYS)
    if unknown:
        raise PilotError(f"{conf.name} [panel:{name}]", ", ".join(unknown), ", ".join(sorted(KEYS)), "mend the key")
    missing = [key for key in ("label", "help", "group") if key not in said]
    if missing:
        raise PilotError(f"{conf.name} [panel:{name}]", "nothing", ", ".join(missing), "add what is missing")

    def lines(key: str) -> tuple[str, ...]:
        return tuple(line.strip() for line in said.get(key, "").splitlines() if line.strip())

    def pairs(key: str) -> tuple[tuple[str, str], ...]:
        split = [line.split(" > ") for line in lines(key)]
        if any(len(pair) != 2 for pair in split):
            raise PilotError(f"{conf.name} {key}", said[key], "lines of the form A > B", "mend the line")
        return tuple((a.strip(), b.strip()) for a, b in split)

    def whether(key: str) -> bool:
        try:
            return said.getboolean(key, fallback=False)
        except ValueError as error:
            raise PilotError(f"{conf.name} {key}", said[key], "yes or no", "mend the value") from error

    port = said.get("port")
    if port is not None and not port.isdecimal():
        raise PilotError(f"{conf.name} port", port, "a port number", "mend the value")
    install = said.get("install")
    upstream = said.get("upstream")
    return Service(
        name=name, label=said["label"], help=said["help"], group=said["group"],
        port=int(port) if port else None,
        upstream=upstream.replace("{run}", str(run_folder())) if upstream else None,
        health=said.get("health"), pinned=whether("pinned"), install=install,
        installed=install is None or (app_folder(name) / INSTALLED).is_file(),
        autostart=whether("autostart") or whether("pinned"),
        directory=said.get("directory"), path=said.get("path"),
        folders=lines("folders"), seeds=pairs("seeds"), links=pairs("links"),
        deny=lines("deny"), same_origin=lines("same_origin"), traps=said.get("traps", ""),
    )  # fmt: skip


def services(workspace: Workspace | None = None, folder: Path = FOLDER) -> list[Service]:
    """Every service, by public port, then by name; a person's own last. workspace: whose choices (autostart, own
    services) to use; the one that is found by default."""
    home = workspace or Workspace.find()
    chosen = choices(home)
    ours = [_chosen(read(conf), chosen) for conf in sorted(folder.glob("*.conf"))]
    taken: dict[int, str] = {}
    for service in ours:
        if service.port and taken.setdefault(service.port, service.name) != service.name:
            raise PilotError(
                f"{service.name}.conf port",
                service.port,
                f"a port that {taken[service.port]} has not",
                "choose another",
            )
    ours.sort(key=lambda service: (service.port or 0, service.name))
    theirs, _ = own.declared(home.root / "config" / "services")
    return ours + [
        Service(
            name=one.name,
            label=one.label,
            help=one.help,
            group="Yours",
            autostart=chosen.get(f"own-{one.name}", one.autostart),
            own=True,
        )
        for one in theirs
    ]


def service(name: str, workspace: Workspace | None = None) -> Service:
    """One service by name. Raises PilotError listing those that exist."""
    known = services(workspace)
    for one in known:
        if name in (one.name, one.program):
            return one
    raise PilotError("service", name, ", ".join(one.name for one in known), "name one of these")


def _chosen(service: Service, chosen: Mapping[str, bool]) -> Service:
    if service.pinned or service.name not in chosen:
        return service
    return replace(service, autostart=chosen[service.name])


def environment(workspace: Workspace, environ: Mapping[str, str] = os.environ, folder: Path = FOLDER) -> dict[str, str]:
    """Every variable that the .conf files name as %(ENV_...)s: what boot gives supervisord, and nothing secret.

    Values come from environ where it has them, else from the pod's fixed places.
    """
    fixed = {
        "PILOT_WORKSPACE": str(workspace.root),
        "PILOT_RUN": "/run/pilot",
        "PILOT_LOGS": "/var/log/pilot",
        "PILOT_APPS": str(workspace.root / "apps"),
        "PILOT_BUILT_APPS": "/opt/apps",
        "PILOT_CODE": str(FOLDER.parent.parent),
        "PILOT_PYTHON": sys.executable,
        "PILOT_TOOLS": "/opt/venvs/tools",
        "PILOT_SECRETS": str(workspace.root / "config" / "panel"),
        "PILOT_HOME": "/home/pilot",
    }
    values = {name: environ.get(name) or default for name, default in fixed.items()}
    for one in services(workspace, folder):
        if not one.own:
            # What is not installed would only fail at once.
            flag = "true" if one.autostart and one.installed else "false"
            values["PILOT_AUTOSTART_" + one.name.upper().replace("-", "_")] = flag
    return values


def compile(workspace: Workspace, folder: Path = FOLDER) -> tuple[str, list[str]]:
    """What boot writes beside the .conf files: the one group of all programs, and the person's own services.

    Returns the text and notes for the boot log (what was refused and why)."""
    text, notes = own.compile(workspace.root / "config" / "services", choices(workspace))
    ours = [conf.stem for conf in sorted(folder.glob("*.conf"))]
    programs = ours + own.programs(text)
    # supervisord stops groups one after another, but the members of one group at the same time.
    return f"[group:pilot]\nprograms={','.join(programs)}\n\n{text}", notes
