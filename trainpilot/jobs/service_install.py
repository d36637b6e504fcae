"""The job `service-install`: runs the installer of an on-demand service, with its output in log.txt.

It runs code from the network as the services' own user: it is a job of the worker (resource cpu), not of the courier,
because it needs the network but must never be near a token. The script is chosen by the service's plain name, never by
a path, and gets an argument list, no shell and an environment without secrets.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainpilot.errors import ExitCode, PilotError, RunFailed
from trainpilot.runs.secrets import without_tokens
from trainpilot.runs.stop import stop_grace

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "service-install"
LABEL = "Service"
RESOURCE: Resource = "cpu"
SCRIPTS = Path(__file__).parents[2] / "scripts" / "services"
SCRIPTS_VARIABLE = "PILOT_SERVICE_SCRIPTS"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    service: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Name of the service")
    do: Literal["install", "remove"] = "install"


def title(params: Params) -> str:
    return f"{params.do} {params.service}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    script = installer(params.service)
    command = [str(script), params.do]
    progress.say(f"running {' '.join(command)}")
    job.state.write(params.do, force=True)
    environment = without_tokens(os.environ) | {"PILOT_WORKSPACE": str(job.workspace.root)}
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=job.workspace.root,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                stop.check()
                time.sleep(0.05)
        finally:
            _end(process)
    code = process.returncode
    if code == ExitCode.BAD_INPUT:
        raise PilotError(f"installer of {params.service}", _last_line(job.log), "exit code 0", "Read log.txt.")
    if code:
        remedy = "Read log.txt; what was fetched is kept, and a retry goes on from there."
        raise RunFailed(f"installer of {params.service}", f"ended with {code}: {_last_line(job.log)}", "0", remedy)
    return f"{params.service}: {params.do} done"


def installer(service: str) -> Path:
    """The script of a service. PilotError where there is none."""
    folder = Path(os.environ.get(SCRIPTS_VARIABLE) or SCRIPTS)
    path = folder / f"{service}.sh"
    known = sorted(found.stem for found in folder.glob("*.sh") if _NAME.fullmatch(found.stem))
    if service not in known or not os.access(path, os.X_OK):
        raise PilotError("service", service, ", ".join(known) or f"none in {folder}", "Choose one of these.")
    return path


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of a stopped installer goes on in the background: its whole session is asked, then killed."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(stop_grace() / 3)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
