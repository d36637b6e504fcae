"""The dashboard: what is shown, what a fresh workspace teaches, and which alerts there are, each with its remedy."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from controlpilot.supervisor import ServiceState
from controlpilot.telemetry import Gpu, Sample, Telemetry
from controlpilot.views.dashboard import DISK_LOW, DISK_VERY_LOW, Dashboard, dashboard
from tests.panel import run_folders
from tests.panel.conftest import Panel
from trainpilot.workspace import Workspace

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path) -> Sample:
    """A machine that has enough of everything."""
    more = {"disk_free": 100 * GIB, "disk_total": 200 * GIB, "memory_used": GIB, "memory_total": 8 * GIB}
    return Telemetry(tmp_path).now().model_copy(update=more)


def board(
    workspace: Workspace, machine: Sample, states: dict[str, ServiceState] | None = None, **more: Any
) -> Dashboard:
    return dashboard(workspace, machine, states, "", time.time() - 1800, workspace.root / "run", **more)


def gpu(**more: Any) -> Gpu:
    facts = {"uuid": "GPU-1", "name": "RTX", "load": 0.5, "memory_used": GIB, "memory_total": 24 * GIB}
    return Gpu(**(facts | {"temperature": 60.0, "power": 100.0, "power_limit": 300.0} | more))


def test_a_fresh_workspace_teaches_the_first_steps(panel: Panel) -> None:
    page = panel.client.get("/").text
    for shown in ("/train?demo=1", "/datasets", "/help/first-lora", "trainpilot train --profile demo"):
        assert shown in page, shown
    assert panel.client.get("/help/first-lora").status_code == 200


def test_a_machine_without_gpu_is_told_so(panel: Panel) -> None:
    sample = panel.desk.telemetry.now()
    page = panel.client.get("/").text
    assert ("No GPU here" in page) == (not sample.gpus)
    assert sample.no_gpu in page


def test_the_run_in_progress_the_queue_and_the_last_runs(panel: Panel) -> None:
    place = panel.workspace
    run_folders.finished(place, "cat-v1", 20)
    run_folders.new(place, "waits").queue("")
    running = run_folders.new(place, "runs-now", 400)
    running.begin_attempt("cpu")
    run_folders.train(running, 1, 60, of=400, samples=True, every=60)
    running.state.write("train", 60, 400, eta=300, force=True, loss=0.08)
    now = panel.client.get("/?part=now").text
    assert "<html" not in now and "60 of 400" in now and "5 min left" in now
    assert "step-00000060_p0.png" in now and "/api/v1/runs/runs-now/series" in now
    assert ">waits</a>" in now and "Your first LoRA" not in now
    more = panel.client.get("/?part=more").text
    assert "cat-v1" in more and "runs-now" not in more


def test_when_nothing_needs_a_person_there_is_no_alert(panel: Panel, machine: Sample) -> None:
    run_folders.finished(panel.workspace, "cat-v1", 20)
    shown = board(panel.workspace, machine.model_copy(update={"gpus": [gpu()], "no_gpu": ""}))
    assert shown.alerts == [] and not shown.fresh


@pytest.mark.parametrize(
    ("change", "level", "about", "words"),
    [
        ({"disk_free": DISK_LOW - 1}, "warn", "disk", "nearly full"),
        ({"disk_free": DISK_VERY_LOW - 1}, "bad", "disk", "The disk is full"),
        ({"memory_used": int(7.9 * GIB)}, "warn", "memory", "Memory is nearly full"),
        ({"gpus": [gpu(temperature=91.0)]}, "warn", "gpu", "is hot"),
        ({"gpus": [gpu(memory_used=24 * GIB)]}, "info", "gpu", "memory is full"),
    ],
)
def test_alerts_of_the_machine(
    panel: Panel, machine: Sample, change: dict[str, Any], level: str, about: str, words: str
) -> None:
    alerts = board(panel.workspace, machine.model_copy(update=change)).alerts
    assert [(one.level, one.about) for one in alerts] == [(level, about)]
    assert words in alerts[0].title and alerts[0].remedy


def test_alerts_of_runs_services_queue_and_boot(panel: Panel, machine: Sample) -> None:
    place = panel.workspace
    failed = run_folders.new(place, "dog")
    failed.begin_attempt("cpu")
    failed.finish("failed", "out of memory", run_folders.ExitCode.FAILED)
    run_folders.new(place, "waits").queue("")
    (place.root / "run").mkdir()
    lines = [
        {"level": "ok", "what": "fine", "text": ""},
        {"level": "problem", "what": "The volume is slow", "text": "x"},
    ]
    (place.root / "run" / "boot.json").write_text(json.dumps({"lines": lines}))
    states = {name: ServiceState(name, "FATAL" if name == "tensorboard" else "RUNNING", "", 1, 0.0, "")
              for name in ("tensorboard", "trainpilot", "gateway")}  # fmt: skip
    shown = board(place, machine, states)
    alerts = {(one.about, one.name): one for one in shown.alerts}
    assert set(alerts) == {("pod", ""), ("service", "tensorboard"), ("queue", ""), ("run", "dog")}
    assert alerts["run", "dog"].text == "out of memory" and "trainpilot worker" in alerts["queue", ""].remedy
    assert all(one.remedy for one in alerts.values())
    known = {one.name: one.state for one in shown.services}
    assert known["trainpilot"] == "RUNNING" and known["panel"] == "UNKNOWN"


def test_the_session_costs_what_its_hours_cost(panel: Panel, machine: Sample) -> None:
    assert board(panel.workspace, machine).session.cost is None
    cost = board(panel.workspace, machine, price_per_hour=0.8).session.cost
    assert cost is not None and cost == pytest.approx(0.4, abs=0.01)
