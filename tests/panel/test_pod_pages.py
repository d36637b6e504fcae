"""The pod's stop in the panel: who may set it, what every page shows, what is noted of somebody who looks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from controlpilot import life
from controlpilot.idle import FILE, REQUESTS, IdleState
from controlpilot.life import SEEN
from controlpilot.pod_stop import PodStop
from controlpilot.views.queue import queue
from controlpilot.views.settings import preferences
from tests.panel import run_folders as made
from tests.panel.conftest import Panel
from trainpilot.errors import ExitCode
from trainpilot.runs.job import mark
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity

KEY = "key-nobody-may-see"


def says(panel: Panel, **state: Any) -> None:
    """What a live lookout would have written."""
    path = panel.workspace.jobs / FILE
    path.parent.mkdir(exist_ok=True)
    told = IdleState(**state).model_dump() | {"process": Identity.own().as_dict()}
    path.write_text(json.dumps(told))


def asked(panel: Panel) -> list[str]:
    return sorted(path.name for path in (panel.workspace.jobs / REQUESTS).glob("*"))


def test_what_stops_the_pod_is_set_with_the_password_alone(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = panel.desk.door.password_throttle
    monkeypatch.setattr(throttle, "_steady", lambda: throttle._at)  # no attempt comes back meanwhile
    client = panel.client
    wish = {"action": "command", "command": "/bin/echo\n--now\n\n", "password": "guess"}
    refused = client.post("/settings/pod-stop", data=wish, headers={"HX-Request": "true"})
    assert refused.status_code == 400 and PodStop(panel.desk.secrets).choice().action == "none"
    _, token = panel.desk.door.tokens.create("a program")
    bearer = {"Authorization": f"Bearer {token}"}
    body = {"action": "command", "command": ["/bin/echo", "--now"]}
    assert panel.anonymous.put("/api/v1/pod/stop", json=body, headers=bearer).status_code == 400
    wrong = panel.anonymous.put("/api/v1/pod/stop", json=body | {"password": token}, headers=bearer)
    assert wrong.status_code == 400 and PodStop(panel.desk.secrets).choice().action == "none"
    assert client.post("/settings/pod-stop", data=wish | {"password": panel.password}).status_code == 303
    assert PodStop(panel.desk.secrets).choice().command == ("/bin/echo", "--now")
    again = panel.anonymous.put("/api/v1/pod/stop", json=body | {"password": panel.password}, headers=bearer)
    assert again.status_code == 200 and again.json["ready"] == ""
    guesses = [client.put("/api/v1/pod/stop", json=body | {"password": "x"}).status_code for _ in range(8)]
    assert guesses[-1] == 429


def test_a_key_is_kept_closed_and_never_shown(panel: Panel) -> None:
    data = {"action": "runpod", "pod": "abc123xyz", "key": KEY, "password": panel.password}
    assert panel.client.post("/settings/pod-stop", data=data).status_code == 303
    kept = panel.desk.secrets / "pod_stop.json"
    assert KEY in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600
    for path in ("/settings", "/api/v1/pod", "/api/v1/settings"):
        assert KEY not in panel.client.get(path).text
    shown = panel.client.get("/api/v1/pod").json["stop"]
    assert (shown["key"], shown["pod"], shown["ready"]) == ("saved", "abc123xyz", "")
    forgotten = panel.client.post("/api/v1/pod/forget-keys", json={"password": panel.password}).json
    assert forgotten["key"] == "" and "API key is missing" in forgotten["ready"]
    wrong = panel.client.post("/settings/pod-stop", data=data | {"key": "a b"}, headers={"HX-Request": "true"})
    assert wrong.status_code == 400 and "a b" not in wrong.text


def test_every_page_shows_a_countdown_that_can_be_cancelled(panel: Panel) -> None:
    assert "Keep it on" not in panel.client.get("/runs").text
    says(panel, phase="countdown", why="nothing was going on for 30 min", at=time.time() + 150)
    for path in ("/", "/runs", "/train", "/settings", "/help", "/pod"):
        page = panel.client.get(path).text
        assert "This pod is stopped soon" in page and "in 2 min" in page, path
    assert panel.client.post("/pod/stay", headers={"HX-Request": "true"}).status_code == 200
    assert asked(panel) == ["stay"]
    says(panel, phase="failed", error="RunPod: answered 401. <b>Save</b> a key", tries=3, at=time.time())
    page = panel.client.get("/pod").text
    assert "could not be stopped and keeps costing" in page and "3 tries" in page and "<b>Save" not in page
    path = panel.workspace.jobs / FILE
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 4194303'))
    assert "Keep it on" not in panel.client.get("/pod").text, "nobody stops anything any more"
    assert "Log in" in panel.anonymous.get("/login").text and panel.anonymous.get("/pod").status_code == 401


def test_the_pod_is_stopped_when_all_is_done_only_where_something_can(panel: Panel) -> None:
    refused = panel.client.post("/api/v1/pod/stop")
    assert refused.status_code == 409 and "Settings page" in refused.json["error"]["remedy"]
    PodStop(panel.desk.secrets).save("command", command=["/bin/true"])
    refused = panel.client.post("/api/v1/pod/stop")
    assert refused.status_code == 409 and "courier" in refused.json["error"]["remedy"]
    says(panel, phase="off")
    assert panel.client.post("/api/v1/pod/stop").status_code == 204 and asked(panel) == ["stop"]
    assert panel.client.post("/api/v1/pod/stay").status_code == 204 and asked(panel) == ["stay", "stop"]


def test_a_run_can_be_the_last_one(panel: Panel) -> None:
    run = made.new(panel.workspace, "zorp", 20)
    run.queue()
    assert "Stop the pod after it" in panel.client.get("/runs/zorp").text
    data = {"stop_pod": "1", "answer": "pod"}
    said = panel.client.post("/runs/zorp/about", data=data, headers={"HX-Request": "true"})
    assert "stopped after this run" in said.text
    assert json.loads((run.path / "meta.json").read_text())["stop_pod"] is True
    assert "Keep the pod on after it" in panel.client.get("/runs/zorp").text


def test_minutes_and_switches_are_kept_beside_what_else_is_set(panel: Panel) -> None:
    panel.client.post("/settings/notify-when", data={"tell_when": ["nan"]})
    panel.client.post("/settings/money", data={"idle_minutes": "20", "stop_when_done": "yes", "price_per_hour": "0.5"})
    kept = preferences(panel.workspace)
    assert (kept.idle_minutes, kept.stop_when_done, kept.tell_when) == (20, True, ["nan"])
    assert panel.client.put("/api/v1/settings", json={"idle_minutes": 1}).status_code == 400
    panel.client.put("/api/v1/settings", json={"idle_minutes": 45})
    assert '<option value="45" selected>45 minutes' in panel.client.get("/settings").text


def seen(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a person was noted since the last question."""
    path: Path = panel.desk.secrets / SEEN
    noted = path.exists()
    path.unlink(missing_ok=True)
    monkeypatch.setattr(life, "_noted", {})
    return noted


def test_who_looks_is_noted_and_who_only_left_a_window_open_is_not(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, anonymous = panel.client, panel.anonymous
    seen(panel, monkeypatch)
    anonymous.get("/login")
    anonymous.get("/runs")
    _, token = panel.desk.door.tokens.create("a program")
    anonymous.get("/api/v1/runs", headers={"Authorization": f"Bearer {token}"})
    assert not seen(panel, monkeypatch)
    client.get("/runs")
    assert seen(panel, monkeypatch)
    client.get("/pod", headers={"X-Pilot-Untouched": "3"})
    assert seen(panel, monkeypatch)
    client.get("/pod", headers={"X-Pilot-Untouched": "300"})
    assert not seen(panel, monkeypatch)
    client.get("/pod", headers={"X-Pilot-Untouched": "-1e9; drop"})
    assert seen(panel, monkeypatch)


def test_endings_are_told_once_and_only_when_they_stand(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    made.with_time(monkeypatch)
    old = made.finished(panel.workspace, "old", 20)
    old.job.change(times=old.job.times | {"ended": time.time() - 60}).write(old.path)
    first = panel.client.get("/api/v1/endings").json
    assert first["runs"] == []
    run = made.finished(panel.workspace, "zorp", 20)
    lost = made.new(panel.workspace, "leaves", 20)
    lost.begin_attempt("cpu")
    lost.finish("stopped", "the pod stops", ExitCode.PREEMPTED)
    for folder in (run, lost):
        job = folder.job
        job.change(times=job.times | {"ended": first["until"] + 1}).write(folder.path)
    assert panel.client.get(f"/api/v1/endings?after={first['until']}").json["runs"] == []
    monkeypatch.setattr("controlpilot.views.endings.SETTLE", 0.0)
    told = panel.client.get(f"/api/v1/endings?after={first['until']}").json
    assert [(one["name"], one["status"]) for one in told["runs"]] == [("zorp", "done")]
    assert panel.client.get(f"/api/v1/endings?after={told['until']}").json["runs"] == []


def test_the_queue_names_what_holds_the_memory_and_offers_both_ways(panel: Panel) -> None:
    run = made.new(panel.workspace, "zorp", 20)
    run.queue()
    reason = "waiting for 7.2 GB of GPU memory: ComfyUI (pid 7) holds 20.0 GB"
    mark(run.path, FolderLock(run.path / "run.lock"), "queued", reason)
    told = {"working": True, "process": Identity.own().as_dict(), "devices": ["GPU-1"]}
    panel.workspace.jobs.mkdir()
    (panel.workspace.jobs / "worker.json").write_text(json.dumps(told))
    page = panel.client.get("/runs?part=queue").text
    assert "Waiting for 7.2 GB of GPU memory: ComfyUI (pid 7) holds 20.0 GB." in page and "Start anyway" in page

    class States:
        """In the place of supervisord."""

        def states(self) -> dict[str, Any]:
            from controlpilot.supervisor import ServiceState

            return {
                name: ServiceState(name, state, "", 7, 1.0, "")
                for name, state in [("comfyui", "RUNNING"), ("jupyterlab", "RUNNING"), ("invokeai", "STOPPED")]
            }

    found = queue(panel.workspace, States()).waiting[0]  # type: ignore[arg-type]
    assert found.memory and [one.label for one in found.in_the_way] == ["ComfyUI"]
    answered = panel.client.post("/queue", data={"do": "anyway", "run": "zorp"}, headers={"HX-Request": "true"})
    assert "Starts in a moment, although" in answered.text and "Start anyway" not in answered.text
