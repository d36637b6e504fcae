"""Telling that a run ended, against a real server on this machine; and that the URL is told to nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listening import listening

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode
from trainpilot.runs import notify
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

SECRET = "s3cret-path"


def finished(root: Path, variable: str, status: str = "done") -> RunDir:
    """A run that ended after a checkpoint of step 6."""
    config = RunConfig.model_validate({"run": {"name": "zorp"}, "notifications": {"webhook_env": variable}})
    run = RunDir.create(Workspace(root), Resolved(config, {}))
    run.begin_attempt("cpu")
    (run.checkpoints / "step-00000006").mkdir(parents=True)
    (run.checkpoints / "step-00000006" / "COMMITTED").touch()
    run.finish(status, "6 steps", ExitCode.DONE)  # type: ignore[arg-type]
    return run


def events(run: RunDir) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("status", ["done", "failed", "stopped"])
def test_the_end_of_a_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    with listening() as (url, received):
        monkeypatch.setenv("ZORP_HOOK", f"{url}/{SECRET}")
        run = finished(tmp_path, "ZORP_HOOK", status)
    assert received == [(f"/{SECRET}", {"run": "zorp", "status": status, "reason": "6 steps", "step": 6})]
    assert all(event["kind"] != "notice" for event in events(run))


def test_nobody_is_told_where_nothing_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as (url, received):
        monkeypatch.setenv("ZORP_HOOK", f"{url}/{SECRET}")
        run = finished(tmp_path, "")
    assert received == [] and all(event["kind"] != "notice" for event in events(run))


@pytest.mark.parametrize("status", [404, 500])
def test_an_answer_that_refuses_is_a_notice_and_the_run_stays_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    with listening(status) as (url, _):
        monkeypatch.setenv("ZORP_HOOK", f"{url}/{SECRET}")
        run = finished(tmp_path, "ZORP_HOOK")
    notices = [str(event["text"]) for event in events(run) if event["kind"] == "notice"]
    assert len(notices) == 1 and str(status) in notices[0] and "ZORP_HOOK" in notices[0]
    assert run.job is not None and run.job.status == "done"
    written = "".join(path.read_text() for path in run.path.rglob("*") if path.is_file())
    assert SECRET not in written + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://127.0.0.1:1/{SECRET}",  # nobody listens on port 1
        f"http://[::1/{SECRET}",
        f"http://127.0.0.1:http/{SECRET}",
        f"http://127.0.0.1/{SECRET}\nHost: elsewhere",
        SECRET,
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_said_without_it(url: str) -> None:
    said = notify.tell("ZORP_HOOK", {"run": "zorp"}, environment={"ZORP_HOOK": url})
    assert said is not None and "ZORP_HOOK" in said
    assert SECRET not in said and "passwd" not in said


def test_a_redirect_is_not_followed() -> None:
    with listening() as (other, received), listening(302, location=other) as (url, _):
        said = notify.tell("ZORP_HOOK", {"run": "zorp"}, environment={"ZORP_HOOK": f"{url}/{SECRET}"})
    assert received == [] and said is not None and "302" in said


def test_a_server_that_never_answers_does_not_hold_up_the_end() -> None:
    import socket
    import time

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}"
        began = time.monotonic()
        said = notify.tell("ZORP_HOOK", {"run": "zorp"}, timeout=0.2, environment={"ZORP_HOOK": url})
    assert said is not None and time.monotonic() - began < 5
