"""Jobs with real processes: beside training and after it, downloads through the courier, tokens, and every kill."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from file_server import Page, serving
from test_worker import Pod, last_step, status, wait

from trainpilot.runs.events import history
from trainpilot.runs.job import Job
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.process import Identity
from trainpilot.runs.requests import ask
from trainpilot.runs.state import read_state

TOKEN = "hf_" + "zyxwvuts" * 4
ROOT = Path(__file__).parents[2]


def weights(size):
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def pod(tmp_path, monkeypatch):
    place = Pod(tmp_path, monkeypatch)
    yield place
    for folder in place.workspace.jobs.glob("*/job.toml"):
        job = Job.read(folder.parent)
        if job is not None and job.process is not None:
            job.process.signal(signal.SIGKILL)
    place.close()


@pytest.fixture
def site(monkeypatch):
    with serving() as found:
        monkeypatch.setenv("PILOT_TEST_LOCAL_DOWNLOADS", found.place)
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def script(folder, monkeypatch, text):
    """An installer named `thing`."""
    folder.mkdir()
    (folder / "thing.sh").write_text(f"#!/bin/bash\n{text}\n")
    (folder / "thing.sh").chmod(0o755)
    monkeypatch.setenv("PILOT_SERVICE_SCRIPTS", str(folder))


def courier(pod, *options):
    secrets = pod.workspace.root / "config" / "panel"
    code = "from controlpilot.cli.courier import arguments, run; import argparse, sys; p = argparse.ArgumentParser(); "
    code += "arguments(p); sys.exit(run(p.parse_args()))"
    words = ["-c", code, "--workspace", pod.workspace.root, "--secrets", secrets, *options]
    path = pod.workspace.root.parent / f"output-{len(pod.started)}"
    with path.open("wb") as out:
        process = subprocess.Popen([sys.executable, *map(str, words)], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT)
    pod.started[process] = path
    return process


def test_an_installer_runs_with_its_output_and_without_secrets(pod, tmp_path, monkeypatch):
    script(tmp_path / "scripts", monkeypatch, 'echo "installing $1 into $PILOT_WORKSPACE"; env > env.txt; echo done')
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    job = JobDir.create(pod.workspace, "service-install", {"service": "thing"})
    worker = pod.worker("--until-idle")
    assert worker.wait(60) == 0
    assert status(job) == "done", job.log.read_text()
    assert f"installing install into {pod.workspace.root}" in job.log.read_text()
    assert TOKEN not in (pod.workspace.root / "env.txt").read_text()


def test_a_stopped_installer_leaves_nothing_running(pod, tmp_path, monkeypatch):
    script(tmp_path / "scripts", monkeypatch, "trap '' TERM; sleep 1234.5 & echo $! > pid; wait; sleep 1234.5")
    job = JobDir.create(pod.workspace, "service-install", {"service": "thing"})
    pod.worker()
    pid = wait(lambda: (p := pod.workspace.root / "pid").exists() and p.read_text().strip())
    ask(job.path, "stop")
    wait(lambda: status(job) == "stopped")
    wait(lambda: Identity.of(int(pid)) is None, what="the end of the installer's child")


def test_an_installer_that_fails_is_tried_again_and_then_given_up(pod, tmp_path, monkeypatch):
    script(tmp_path / "scripts", monkeypatch, "echo no space; exit 1")
    job = JobDir.create(pod.workspace, "service-install", {"service": "thing"})
    worker = pod.worker("--until-idle")
    assert worker.wait(90) == 0
    found = Job.read(job.path)
    assert (found.status, found.attempts) == ("failed", 4) and "no space" in found.reason


def slow_kind(tmp_path, monkeypatch):
    """A gpu job that can be watched, as the worker's processes find it: a kind of its own in a folder of the path."""
    folder, start = tmp_path / "kinds", tmp_path / "start"
    folder.mkdir()
    start.mkdir()
    (start / "sitecustomize.py").write_text(
        "import trainpilot.jobs as jobs\njobs.__path__.append(" + repr(str(folder)) + ")\n"
    )
    (folder / "slow.py").write_text(
        "import time\nfrom pydantic import BaseModel\nKIND, LABEL, RESOURCE = 'slow', 'Slow', 'gpu'\n"
        "class Params(BaseModel):\n    seconds: float = 1.0\n"
        "def title(params): return 'slow'\n"
        "def run(job, params, progress, stop):\n"
        "    end = time.monotonic() + params.seconds\n"
        "    job.state.write('slow', force=True)\n"
        "    while time.monotonic() < end:\n        stop.check()\n        time.sleep(0.02)\n    return 'slept'\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{start}:{ROOT}")
    import trainpilot.jobs as jobs

    monkeypatch.setattr(jobs, "__path__", [*jobs.__path__, str(folder)])
    jobs.kinds.cache_clear()


@pytest.fixture
def slow(tmp_path, monkeypatch):
    import trainpilot.jobs as jobs

    slow_kind(tmp_path, monkeypatch)
    yield
    jobs.kinds.cache_clear()


def test_a_gpu_job_waits_behind_training_and_says_so(pod, slow):
    run = pod.add("one", 10, at={"1:5": "hold"})
    behind = pod.add("two", 3)
    job = JobDir.create(pod.workspace, "slow", {"seconds": 0.1})
    pod.worker()
    wait(lambda: last_step(run) == 4)
    wait(lambda: "training goes first" in Job.read(job.path).reason)
    assert "run two" in Job.read(job.path).reason and status(job) == "queued"
    (run.path / "go").touch()
    wait(lambda: status(job) == "done")
    ended = Job.read(behind.path).times["ended"]
    assert Job.read(job.path).times["started"] >= ended


def test_a_gpu_job_leaves_for_a_run_and_goes_on_after_it(pod, slow):
    job = JobDir.create(pod.workspace, "slow", {"seconds": 4})
    worker = pod.worker()
    wait(lambda: (read_state(job.path / "state.json") or {}).get("phase") == "slow")
    run = pod.add("urgent", 3)
    wait(lambda: status(run) == "done", what="the run")
    assert status(job) in ("queued", "running")
    wait(lambda: status(job) == "done", what="the job")
    assert Job.read(job.path).attempts == 2
    assert "leaves cpu to run urgent, and continues after it" in pod.output(worker)


def test_a_gpu_job_leaves_for_a_run_that_waits_in_a_shell(pod, slow):
    job = JobDir.create(pod.workspace, "slow", {"seconds": 30})
    pod.worker()
    wait(lambda: (read_state(job.path / "state.json") or {}).get("phase") == "slow")
    run = pod.add("byhand", 3, queue=False)
    pod.shell(run)
    wait(lambda: status(run) == "done", what="the run")


def test_the_courier_takes_network_jobs_alone_and_the_worker_none(pod, site, slow):
    site.pages["/a.safetensors"] = Page(weights(1000))
    job = JobDir.create(pod.workspace, "download", {"url": f"{site.url}/a.safetensors"})
    other = JobDir.create(pod.workspace, "slow", {"seconds": 0})
    worker = pod.worker("--until-idle")
    assert worker.wait(60) == 0
    assert (status(job), status(other)) == ("queued", "done")
    assert courier(pod, "--until-idle").wait(60) == 0
    assert status(job) == "done" and Job.read(job.path).by == "courier"


def test_a_forged_resource_brings_no_code_to_the_courier(pod, tmp_path, monkeypatch):
    script(tmp_path / "scripts", monkeypatch, "touch ran")
    job = JobDir.create(pod.workspace, "service-install", {"service": "thing"})
    text = (job.path / "job.toml").read_text()
    (job.path / "job.toml").write_text(text.replace('resource = "cpu"', 'resource = "net"'))
    assert 'resource = "net"' in (job.path / "job.toml").read_text()
    assert courier(pod, "--until-idle").wait(60) == 0
    assert status(job) == "queued" and not (pod.workspace.root / "ran").exists()


def test_a_planted_link_is_not_written_through(pod, site, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    site.pages["/a.safetensors"] = Page(weights(1000))
    job = JobDir.create(pod.workspace, "download", {"url": f"{site.url}/a.safetensors"})
    job.log.symlink_to(secret)
    process = courier(pod)
    wait(lambda: "cannot be started" in pod.output(process))
    assert secret.read_text() == "untouched"


def test_a_token_is_in_no_environment_argument_log_or_file(pod, site, monkeypatch):
    from controlpilot.hub_tokens import HubTokens

    HubTokens(pod.workspace.root / "config" / "panel").save("HF_TOKEN", TOKEN)
    kept = pod.workspace.root / "config" / "panel" / "hub_tokens.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    commit = site.repository("owner/gated", {"m.safetensors": weights(3_000_000)})
    page = site.pages[f"/owner/gated/resolve/{commit}/m.safetensors"]
    page.token, page.pace = TOKEN, 0.05
    monkeypatch.setenv("CIVITAI_TOKEN", "civitai-" + TOKEN[3:])
    job = JobDir.create(pod.workspace, "download", {"repo": "owner/gated"})
    process = courier(pod)
    wait(lambda: (read_state(job.path / "state.json") or {}).get("step", 0) > 0, what="the first bytes")
    child = Job.read(job.path).process.pid
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"TOKEN" not in environment and TOKEN[3:].encode() not in environment
    assert TOKEN[3:].encode() not in Path(f"/proc/{child}/cmdline").read_bytes()
    page.pace = 0.0
    wait(lambda: status(job) == "done", what="the download")
    process.terminate()
    assert process.wait(20) == 0
    files = [p for p in pod.workspace.root.rglob("*") if p.is_file() and p != kept]
    assert len(files) > 8 and not [p for p in files if TOKEN[3:].encode() in p.read_bytes()]
    assert TOKEN[3:] not in pod.output(process)


def test_a_killed_courier_leaves_the_download_alone_and_the_next_one_attaches(pod, site):
    body = weights(3_000_000)
    rest = threading.Event()  # the end is sent when the second courier is there, however slow this machine is
    site.pages["/a.safetensors"] = Page(body, etag='"1"', gate=rest, hold_at=1_000_000)
    job = JobDir.create(pod.workspace, "download", {"url": f"{site.url}/a.safetensors"})
    first = courier(pod)
    wait(lambda: (read_state(job.path / "state.json") or {}).get("step", 0) > 0, what="the first bytes")
    first.kill()
    first.wait()
    child = Job.read(job.path).process
    assert child.alive()
    second = courier(pod)
    wait(lambda: "attached to its live job" in pod.output(second))
    assert Job.read(job.path).process == child
    rest.set()
    wait(lambda: status(job) == "done", what="the download")
    assert (pod.workspace.models / "a.safetensors").read_bytes() == body
    assert Job.read(job.path).attempts == 1


def test_courier_and_download_killed_together_go_on_where_they_were(pod, site):
    body = weights(3_000_000)
    page = site.pages["/a.safetensors"] = Page(body, etag='"1"', pace=0.05)
    job = JobDir.create(pod.workspace, "download", {"url": f"{site.url}/a.safetensors"})
    first = courier(pod)
    part = pod.workspace.models / ".a.safetensors.part"
    wait(lambda: part.exists() and part.stat().st_size > 1_000_000, what="a third of the file")
    first.kill()
    first.wait()
    Job.read(job.path).process.signal(signal.SIGKILL)
    wait(lambda: not Job.read(job.path).process.alive())
    kept = part.stat().st_size
    page.pace = 0.0
    assert courier(pod, "--until-idle").wait(60) == 0
    assert (pod.workspace.models / "a.safetensors").read_bytes() == body
    (event,) = [event for event in history(job.path / "events.jsonl") if event["kind"] == "file"]
    assert event["resumed_from"] == kept and Job.read(job.path).attempts == 2


def test_a_courier_that_is_asked_to_leave_lets_the_download_go_on_later(pod, site):
    page = site.pages["/a.safetensors"] = Page(weights(3_000_000), pace=0.05)
    job = JobDir.create(pod.workspace, "download", {"url": f"{site.url}/a.safetensors"})
    first = courier(pod)
    wait(lambda: (read_state(job.path / "state.json") or {}).get("step", 0) > 0, what="the first bytes")
    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0 and time.monotonic() - began < 8
    assert status(job) == "queued" and "pre-empted" in Job.read(job.path).reason
    page.pace = 0.0
    assert courier(pod, "--until-idle").wait(60) == 0
    assert status(job) == "done"
