"""Logs: which there are, that names cannot lead elsewhere, and that a gigabyte costs what a page costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.panel import run_folders
from tests.panel.conftest import Panel

GIB = 2**30


@pytest.fixture(autouse=True)
def pod_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where supervisord would write."""
    folder = tmp_path / "pod-logs"
    folder.mkdir()
    monkeypatch.setenv("PILOT_LOGS", str(folder))
    return folder


def big_log(path: Path, size: int = GIB) -> None:
    """A sparse file of `size` bytes whose end and middle are lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.seek(size // 2)
        file.write(b"\nneedle in the middle\n")
        file.seek(size - 64_000)
        file.write(b"\n" + b"".join(b"\x1b[32mline %d\x1b[0m\n" % number for number in range(4000)))


def test_the_list_has_services_runs_and_jobs(panel: Panel, pod_logs: Path) -> None:
    logs = panel.workspace.logs
    (logs / "tb").mkdir(parents=True)
    for name in ("panel.log", "panel.log.1", "cat_command.txt", ".hidden.log"):
        (logs / name).write_text("x\n")
    (logs / "out.log").symlink_to("/etc/hostname")
    run = run_folders.new(panel.workspace, "cat")
    run.log.write_text("begun\n")
    run_folders.new(panel.workspace, "silent")
    job = panel.workspace.jobs / "doctor-1"
    job.mkdir(parents=True)
    (job / "log.txt").write_text("looked\n")
    (pod_logs / "comfyui.log").write_text("in the pod\n")
    found = panel.client.get("/api/v1/logs").json
    names = {(log["kind"], log["name"]) for log in found["logs"]} - {("service", "comfyui.log")}
    assert len(found["logs"]) == len(names) + 1, "the pod's own folder is listed, too"
    assert names == {("service", "panel.log"), ("service", "panel.log.1"), ("run", "cat"), ("job", "doctor-1")}
    page = panel.client.get("/logs").text
    assert "panel.log" in page and "doctor-1" in page
    for kind, name in names:
        opened = panel.client.get(f"/logs/{kind}/{name}")
        assert opened.status_code == 200 and "data-log-reader" in opened.text
    assert panel.client.get("/logs/run/cat/file").data == b"begun\n"


@pytest.mark.parametrize(
    "place", ["service/..%2f..%2fetc%2fpasswd", "service/out.log", "service/cat_command.txt", "run/..", "run/missing",
              "other/panel.log", "job/queue"],
)  # fmt: skip
def test_names_lead_to_logs_alone(panel: Panel, place: str) -> None:
    panel.workspace.logs.mkdir(parents=True)
    (panel.workspace.logs / "cat_command.txt").write_text("secret")
    (panel.workspace.logs / "out.log").symlink_to("/etc/hostname")
    for path in (
        f"/logs/{place}",
        f"/logs/{place}/file",
        f"/api/v1/logs/{place}",
        f"/api/v1/logs/{place}/search?text=a",
    ):
        answer = panel.client.get(path)
        assert answer.status_code == 404, path
        assert "root:" not in answer.text


def test_a_page_escapes_what_a_log_holds(panel: Panel) -> None:
    log = panel.workspace.logs / "comfyui.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\x1b[31m<script>alert(1)</script>\x1b[0m\n\x00\x07bell\n")
    page = panel.client.get("/logs/service/comfyui.log").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page and "\x1b" not in page and "\x07" not in page


def test_following_and_going_back_meet(panel: Panel) -> None:
    log = panel.workspace.logs / "panel.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{number}\n" for number in range(1000)))
    first = panel.client.get("/api/v1/logs/service/panel.log?limit=300").json
    older = panel.client.get(f"/api/v1/logs/service/panel.log?limit=300&before={first['start']}").json
    assert int(older["lines"][-1]) + 1 == int(first["lines"][0])
    with log.open("a") as file:
        file.write("fresh\n")
    assert panel.client.get(f"/api/v1/logs/service/panel.log?after={first['end']}").json["lines"] == ["fresh"]
    both = panel.client.get("/api/v1/logs/service/panel.log?after=0:0&before=0:1")
    assert both.status_code == 400
    assert panel.client.get("/api/v1/logs/service/panel.log?after=nonsense").status_code == 400


def test_a_search_goes_on_where_its_budget_ended(panel: Panel) -> None:
    big_log(panel.workspace.logs / "big.log", 40 * 2**20)
    url = "/api/v1/logs/service/big.log/search?text=NEEDLE"
    found, calls, before = [], 0, ""
    while True:
        answer = panel.client.get(url + before).json
        found += answer["matches"]
        calls += 1
        if answer["next"] is None:
            break
        before = f"&before={answer['next']}"
    assert [match["line"].strip() for match in found] == ["needle in the middle"]
    assert 2 <= calls <= 6


def test_a_gigabyte_costs_what_a_page_costs(tmp_path: Path) -> None:
    """In a process of its own: time of tail, after, before and one search, and the growth of its memory."""
    big_log(tmp_path / "logs" / "big.log")
    code = (
        "import resource, sys, time; from pathlib import Path; from controlpilot.views import logreader, logs;"
        "from trainpilot.workspace import Workspace; w = Workspace(Path(sys.argv[1]));"
        "(w.logs / 'small.log').write_text('one\\n');"
        "logreader.tail(logs.path_of(w, 'service', 'small.log'));"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak(); begun = time.monotonic();"
        "p = logs.path_of(w, 'service', 'big.log'); end = logreader.tail(p); logreader.after(p, '0:0');"
        "logreader.before(p, end.start); took = time.monotonic() - begun; begun = time.monotonic();"
        "logreader.search(p, 'needle'); print(took, time.monotonic() - begun, (peak() - before) / 1024)"
    )
    begun = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True).stdout
    reading, searching, grown = map(float, out.split())
    print(f"1 GiB: three reads {reading:.3f} s, a search step {searching:.3f} s, {grown:.1f} MiB more")
    assert reading < 0.2, "a page of a large log is not a matter of its size"
    assert searching < 3
    assert grown < 24
    assert time.monotonic() - begun < 30
