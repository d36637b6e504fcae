"""schemathesis over the whole description of the API: nothing breaks, and nothing undocumented leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controlpilot.api._openapi import describe
from controlpilot.app import API, create_app
from controlpilot.settings import Settings
from trainpilot.workspace import Workspace

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 6  # of each operation and login


def operations() -> list[str]:
    """method and path of everything that this installation describes."""
    app = create_app(Settings(Workspace.find(), *[Workspace.find().root / "none"] * 2))
    paths = describe(app, API)["paths"]
    return [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]


OPERATIONS = operations()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """One panel for all operations, and a token for it."""
    home = tmp_path_factory.mktemp("api")
    workspace = Workspace(home / "workspace")
    workspace.root.mkdir()
    app = create_app(Settings(workspace, home / "secrets", home / "run"))
    _, token = app.extensions["pilot"].door.tokens.create("schemathesis")
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_wsgi(f"{API}/openapi.json", app, headers=headers)
    return schema, token


def test_the_description_is_valid(served) -> None:
    served[0].validate()
    assert len(OPERATIONS) > 10


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("login", ["token", "nobody"])
def test_what_is_described_is_what_happens(served, name: str, login: str) -> None:
    schema, token = served
    method, path = name.split(" ")
    operation = schema[path][method]
    headers = {"Authorization": f"Bearer {token}"} if login == "token" else {"Origin": "http://localhost"}

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES if login == "token" else 2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def tried(case: schemathesis.Case) -> None:
        case.headers.pop("Authorization", None)
        case.cookies.pop("pilot_session", None)
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)
        if login == "nobody":
            assert response.status_code == 401

    tried()


def test_every_route_is_served_without_torch(tmp_path) -> None:
    """In a process of its own: every GET and every change, then a look at what was imported."""
    code = f"""
import json, re, sys
from pathlib import Path
from controlpilot.app import create_app
from controlpilot.settings import Settings
from trainpilot.workspace import Workspace
home = Path({str(tmp_path)!r})
(home / "w").mkdir()
app = create_app(Settings(Workspace(home / "w"), home / "s", home / "r"))
client = app.test_client()
client.environ_base["HTTP_ORIGIN"] = "http://localhost"
broken, tried = [], 0
for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
    for method in sorted(rule.methods - {{"OPTIONS", "HEAD"}}):
        client.set_cookie("pilot_session", app.extensions["pilot"].door.sessions.begin("x", "y")[1])
        url = re.sub(r"<any\\(([a-z]+)[^>]*>", r"\\1", rule.rule)
        url = re.sub(r"<[^>]*>", "1", url)
        status = client.open(url, method=method, json=None if method == "GET" else {{}}).status_code
        tried += 1
        if status >= 500 and status != 503:
            broken.append((method, url, status))
heavy = [name for name in ("torch", "diffusers", "transformers", "peft", "accelerate") if name in sys.modules]
print(json.dumps([tried, broken, heavy]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tried, broken, heavy = json.loads(done.stdout.splitlines()[-1])
    assert tried > 40 and broken == [] and heavy == [], done.stderr[-3000:]
