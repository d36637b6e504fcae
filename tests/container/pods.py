"""Pods for the tests of this folder: containers of the real image, started as a person would, always removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

DOCKER = "/usr/bin/docker"  # another client earlier on PATH may not speak the engine's version
ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "a password of the tests"
LABEL = "lora-pilot-test"
BROWSER = {"Accept": "text/html,*/*;q=0.8"}  # gets pages where a program gets JSON
TINY = (
    "train", "--profile", "quick_test", "--dataset", "datasets/images/10_zorp", "--base-model", "models/pilot-tiny",
    "--set", "sampling.every_steps=0", "--set", "sampling.evaluate_at_end=false",
)  # fmt: skip


def docker(
    *words: str, timeout: float = 60, check: bool = True, give: str | None = None
) -> subprocess.CompletedProcess[str]:
    """One call of the engine's client. Raises where it fails, with what it said."""
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, timeout=timeout, input=give)
    if check and done.returncode:
        raise AssertionError(
            f"docker {' '.join(words)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def until(seconds: float, what: str, question: Any, every: float = 0.1) -> Any:
    """Ask until the answer is true; fails after `seconds`, naming what never came."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(every)


@dataclass
class Pod:
    """One container. `ip` is its address on the bridge, where the gateway has the contract's ports."""

    image: str
    arguments: Sequence[str] = ()
    volume: str | None = None  # a folder, or a name; None: one of its own
    options: str = ""  # of the volume: ":ro"
    name: str = field(default_factory=lambda: f"lora-pilot-test-{uuid.uuid4().hex[:8]}")
    password: str | None = PASSWORD

    def start(self) -> Pod:
        # One thread: the pods of two test processes share the machine's cores.
        words = ["run", "--detach", "--name", self.name, "--label", f"{LABEL}={os.getpid()}", "--stop-timeout", "15"]
        words += ["--env", "OMP_NUM_THREADS=1"]
        if self.password:
            words += ["--env", f"PILOT_PASSWORD={self.password}"]
        if self.volume:
            words += ["--volume", f"{self.volume}:/workspace{self.options}"]
        docker(*words, *self.arguments, self.image)
        return self

    def __enter__(self) -> Pod:
        return self.start()

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)

    # -- looking ------------------------------------------------------------------------------------------------------

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(docker("inspect", self.name).stdout)[0])

    @property
    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    @property
    def ip(self) -> str:
        return str(self.inspect()["NetworkSettings"]["IPAddress"])

    def logs(self) -> str:
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    def healthy(self, seconds: float = 60) -> Pod:
        """Wait until the panel answers through the gateway. An end before that fails at once, with the log."""
        address = f"http://{self.ip}:7878/healthz"  # as a provider's probe asks: by an address
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if requests.get(address, timeout=2).status_code == 200:
                    return self
            except requests.RequestException:
                pass
            assert self.running, f"the container ended:\n{self.logs()[-6000:]}"
            time.sleep(0.05)
        raise AssertionError(f"no healthy panel within {seconds} s:\n{self.logs()[-6000:]}\n{self.service_logs()}")

    def service_logs(self) -> str:
        return self.run("sh", "-c", "tail -n 15 /var/log/pilot/*.log", check=False).stdout[-6000:]

    # -- doing --------------------------------------------------------------------------------------------------------

    def run(
        self, *command: str, user: str | None = None, check: bool = True, timeout: float = 120, detach: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """docker exec, as root where no user is named, as it is for a person."""
        words = ["exec", *(["--user", user] if user else []), *(["--detach"] if detach else []), self.name, *command]
        return docker(*words, timeout=timeout, check=check)

    def states(self) -> dict[str, str]:
        """Every program's state, over supervisord's socket."""
        said = self.run("supervisorctl", "--configuration", "/opt/pilot/supervisord.conf", "status", check=False)
        if "RUNNING" not in said.stdout:
            said = self.run("sh", "-c", "supervisorctl -s unix:///run/pilot/supervisor.sock status", check=False)
        return {one[0]: one[1] for one in re.findall(r"^(?:pilot:)?(\S+)\s+([A-Z]+)", said.stdout, re.MULTILINE)}

    def job(self, run: str) -> dict[str, Any]:
        done = self.run("cat", f"/workspace/outputs/{run}/job.json", check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        done = self.run("cat", f"/workspace/outputs/{run}/events.jsonl", check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.endswith("}")]
        return [row for row in rows if row["kind"] == kind]

    def steps(self, run: str) -> int:
        """The last step it told of."""
        return max((row["step"] for row in self.events(run, "step")), default=0)

    def stop(self) -> float:
        """docker stop; how long it took, in seconds. Its own limit of 15 s would end in a kill."""
        began = time.monotonic()
        docker("stop", "--time", "15", self.name)
        return time.monotonic() - began

    def again(self) -> Pod:
        docker("start", self.name)
        return self

    # -- being a person -----------------------------------------------------------------------------------------------

    def origin(self, port: int = 7878) -> str:
        return f"http://{self.ip}:{port}"

    def login(self, password: str | None = None) -> requests.Session:
        """A browser that is logged in."""
        session = requests.Session()
        session.headers["Accept"] = BROWSER["Accept"]
        said = session.post(
            f"{self.origin()}/login",
            data={"password": password or self.password},
            headers={"Origin": self.origin()},
            allow_redirects=False,
            timeout=10,
        )
        assert said.status_code == 303, f"login: {said.status_code}\n{said.text[:2000]}"
        return session

    def enter(self, session: requests.Session, service: str) -> str:
        """Open a service as the panel's link does; returns its origin, whose cookie the session then has."""
        address = f"{self.origin()}/services/{service}/open"

        def opened() -> requests.Response | None:
            said = session.get(address, allow_redirects=False, timeout=10)
            return said if said.status_code == 303 else None

        said = until(40, f"opening {service}", opened, every=0.5)
        inside = session.get(said.headers["Location"], allow_redirects=False, timeout=10)
        assert inside.status_code == 303, f"{said.headers['Location']}: {inside.status_code} {inside.text[:500]}"
        return str(re.match(r"https?://[^/]+", said.headers["Location"]).group())  # type: ignore[union-attr]
