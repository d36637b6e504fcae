"""`controlpilot serve` and the small commands, as processes: password, worker and courier beside it, and its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from trainpilot.runs.atomic import read_json
from trainpilot.runs.process import Identity


def controlpilot(workspace: Path, *arguments: str, **rest: str) -> subprocess.Popen[str]:
    """A process with nothing at its input, in an environment of its own."""
    environment = {"PATH": os.environ["PATH"], "PILOT_WORKSPACE": str(workspace), "PILOT_RUN": str(workspace / "run")}
    return subprocess.Popen(
        [sys.executable, "-m", "controlpilot", *arguments],
        env=environment | rest, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def output(workspace: Path, *arguments: str, **rest: str) -> str:
    process = controlpilot(workspace, *arguments, **rest)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def get(port: int, path: str, token: str = "") -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answered:
            return answered.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def until(true, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def companion(workspace: Path, name: str) -> Identity | None:
    return Identity.parse((read_json(workspace / "jobs" / f"{name}.json") or {}).get("process"))


def test_serve_runs_the_worker_and_the_courier_and_they_end_with_it(tmp_path: Path) -> None:
    port = free_port()
    process = controlpilot(tmp_path, "serve", "--port", str(port), PILOT_PASSWORD="a secret password")
    try:
        until(lambda: get(port, "/healthz") == 200)
        until(lambda: companion(tmp_path, "worker") and companion(tmp_path, "courier"))
        both = [companion(tmp_path, "worker"), companion(tmp_path, "courier")]
        assert all(one.alive() for one in both)
        for pid in [process.pid, *(one.pid for one in both)]:
            assert b"a secret password" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        for one in both:
            assert b"a secret password" not in Path(f"/proc/{one.pid}/environ").read_bytes()
        token = json.loads(output(tmp_path, "token", "create", "a test", "--json"))
        assert get(port, "/api/v1/services", token["token"]) == 200
        assert "a test" in output(tmp_path, "token", "list") and token["token"] not in output(tmp_path, "token", "list")
        output(tmp_path, "token", "revoke", token["id"])
        assert get(port, "/api/v1/services", token["token"]) == 401
    finally:
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=30)
    assert process.returncode == 0, text
    assert not any(one.alive() for one in both)
    assert "a secret password" not in text


def test_the_first_password_is_printed_once(tmp_path: Path) -> None:
    said = []
    for _ in range(2):
        port = free_port()
        process = controlpilot(tmp_path, "serve", "--alone", "--port", str(port))
        until(lambda port=port: get(port, "/healthz") == 200)
        process.send_signal(signal.SIGTERM)
        said.append(process.communicate(timeout=30)[0])
    assert re.search(r"password is ([a-z0-9]{4}-){4}[a-z0-9]{4} ", said[0]) and "password is" not in said[1]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        process = controlpilot(tmp_path, "serve", "--alone", "--port", str(port))
        text, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and str(port) in text and "Traceback" not in text


def test_it_serves_on_a_socket_for_the_gateway(tmp_path: Path) -> None:
    place = tmp_path / "panel.sock"
    place.write_text("left by one that was killed")
    process = controlpilot(tmp_path, "serve", "--socket", str(place))
    try:
        until(lambda: place.is_socket() and place.stat().st_mode & 0o777 == 0o660)
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(place))
            link.sendall(b"GET /auth/check HTTP/1.0\r\nHost: x\r\nX-Pilot-Service: comfyui\r\n\r\n")
            assert link.recv(100).startswith(b"HTTP/1.0 401")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def test_a_password_set_in_the_shell(tmp_path: Path) -> None:
    made = json.loads(output(tmp_path, "password", "--generate", "--json"))["password"]
    assert re.fullmatch(r"([a-z0-9]{4}-){4}[a-z0-9]{4}", made)
    refused = controlpilot(tmp_path, "password")
    assert refused.wait(timeout=30) == 2 and "no terminal" in refused.stdout.read()


def test_openapi_is_printed(tmp_path: Path) -> None:
    said = json.loads(output(tmp_path, "openapi"))
    assert said["openapi"] == "3.1.0" and "/services/{name}/state" in said["paths"]


@pytest.mark.parametrize("verb", ["serve", "services", "password", "token", "openapi", "courier"])
def test_every_verb_has_an_example(tmp_path: Path, verb: str) -> None:
    assert "example: controlpilot" in output(tmp_path, verb, "--help")
