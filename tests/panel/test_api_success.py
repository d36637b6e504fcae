"""Every operation of the API succeeds at least once, over real files, and answers as it is described.

An operation that is new has no request in api_world.py, and the first test names it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from api_world import REQUESTS, World
from conftest import PASSWORD, settings_of
from listening import listening
from picture_folders import measured, with_demo
from test_api_contract import CHECKS, OPERATIONS

from controlpilot.app import API, create_app
from controlpilot.auth.passwords import Passwords
from controlpilot.supervisor import Supervisor
from trainpilot.errors import PilotError

SUPERVISORD = """
[supervisord]
nodaemon=true
logfile={home}/supervisord.log
pidfile={home}/pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[unix_http_server]
file={home}/supervisor.sock
chmod=0700
[group:pilot]
programs=tensorboard
[program:tensorboard]
command={python} -c "import time; print('here', flush=True); time.sleep(1000)"
autostart=false
startsecs=0
redirect_stderr=true
stdout_logfile={home}/tensorboard.log
"""


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a supervisord with one program."""
    home = tmp_path_factory.mktemp("pod")
    (home / "supervisord.conf").write_text(SUPERVISORD.format(home=home, python=sys.executable))
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(home / "supervisord.conf")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while True:
        try:
            Supervisor(home / "supervisor.sock").states()
            break
        except PilotError:
            assert time.monotonic() < end and process.poll() is None, "supervisord did not start"
            time.sleep(0.1)
    yield home / "supervisor.sock"
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, supervisor: Path) -> Iterator[tuple[World, Any]]:
    """A furnished workspace, and the description of the panel over it."""
    home = tmp_path_factory.mktemp("world")
    settings = replace(settings_of(home), supervisor=supervisor)
    workspace = with_demo(home / "workspace")
    measured(workspace, workspace.datasets)
    Passwords(settings.secrets).set(PASSWORD, "saved")
    app = create_app(settings)
    _, token = app.extensions["pilot"].door.tokens.create("a program")
    headers = {"Authorization": f"Bearer {token}"}
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = headers["Authorization"]
    schema = schemathesis.openapi.from_wsgi(f"{API}/openapi.json", app, headers=headers)
    with listening() as (url, _):
        inbox = url.replace("http://", "json://")
        yield World(workspace, settings.secrets, PASSWORD, client, inbox), schema


def test_no_operation_is_left_out() -> None:
    assert sorted(REQUESTS) == sorted(OPERATIONS)


@pytest.mark.parametrize("name", REQUESTS)
def test_it_succeeds_as_described(world: tuple[World, Any], name: str) -> None:
    there, schema = world
    asked = REQUESTS[name](there)
    method, path = name.split(" ")
    case = schema[path][method].Case(path_parameters=asked.path, query=asked.query, headers=asked.headers)
    if asked.body is not None:
        case.body, case.media_type = asked.body, "application/json"
    headers = {"Authorization": there.client.environ_base["HTTP_AUTHORIZATION"]} | asked.headers
    more = {} if asked.data is None else {"data": asked.data}
    response = case.call(headers=headers, **more)
    case.validate_response(response, checks=CHECKS)
    assert 200 <= response.status_code < 300, f"{name} answered {response.status_code}: {response.text[:500]}"
