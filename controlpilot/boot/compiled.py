"""What boot writes for others: supervisord's environment and group, nginx.conf, the variables of shells.

supervisord's environment is what every service inherits: a list of what may pass, and nothing that looks like a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from controlpilot import gateway, services
from controlpilot.boot.report import Report
from controlpilot.boot.volume import Volume
from controlpilot.settings import Settings
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

LOCAL_CACHE = Path("/var/cache/pilot")
PASSED = re.compile(
    r"(PILOT|NVIDIA|CUDA|NCCL|TORCH|PYTORCH|TRITON|OMP|MKL|VAST_TCP_PORT|LC)_\w+"
    r"|PATH|LANG|TZ|TERM|LD_LIBRARY_PATH|TOKENIZERS_PARALLELISM|PUBLIC_IPADDR"
    r"|RUNPOD_POD_ID|CONTAINER_ID|VAST_CONTAINERLABEL"
    r"|HF_(HUB_OFFLINE|ENDPOINT|HUB_\w*TIMEOUT)|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS"
)
SECRET = re.compile(r"PASSWORD|TOKEN(?!IZERS)|SECRET|CREDENTIAL|(API|SSH|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
# Of what passes, the shells get what a person's commands need.
SHELL = re.compile(r"PILOT_(WORKSPACE|SECRETS|RUN|LOGS|APPS|CACHE|STOP_GRACE|REVISION|LOCKS)|HF_HOME")


def passed(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the container's environment that services may see."""
    return {name: value for name, value in environ.items() if PASSED.fullmatch(name) and not SECRET.search(name)}


def environment(
    workspace: Workspace, secrets: Path, volume: Volume, environ: Mapping[str, str], report: Report
) -> dict[str, str]:
    """supervisord's environment."""
    given = passed(environ) | {"PILOT_WORKSPACE": str(workspace.root), "PILOT_SECRETS": str(secrets)}
    if volume.network and "PILOT_CACHE" not in given:
        given["PILOT_CACHE"] = str(LOCAL_CACHE)
        report.note("cache", f"in {LOCAL_CACHE}, on local disk, because the volume is a network's")
    given |= services.environment(workspace, given)
    given.setdefault("LANG", "C.UTF-8")
    given["PYTHONUNBUFFERED"] = "1"
    given["HF_HOME"] = str(workspace.root / "models" / "huggingface")
    return given


def write(workspace: Workspace, settings: Settings, run: Path, given: Mapping[str, str], report: Report) -> None:
    """The group with the person's own services, nginx.conf and the shells' variables, all in the run folder."""
    text, notes = services.compile(workspace)
    for note in notes:
        report.problem("own services", note)
    (run / "supervisor.d" / "pilot.conf").write_text(text, "utf-8")
    public = services.services(workspace)
    try:
        gateway.write(settings, public)
    except PilotError as error:
        report.problem("gateway", f"{error.where}: {error.given}; {error.remedy}; it stays as it was, or closed")
    installed = [one.label for one in public if one.install and one.installed]
    report.ok("services", ", ".join(installed) or "those of the image; others install from the Services page")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(given.items()) if SHELL.fullmatch(name)]
    (run / "shell.env").write_text("".join(lines), "utf-8")
    (run / "shell.env").chmod(0o644)
