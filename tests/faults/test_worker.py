"""The worker with real processes: its own death, its trainers' deaths, signals, hangs, and one run on each device."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.runs import events, segments
from trainpilot.runs.job import Job
from trainpilot.runs.process import Identity
from trainpilot.runs.queue import Queue
from trainpilot.runs.requests import ask
from trainpilot.runs.rundir import RunDir, folders
from trainpilot.workspace import Workspace

HERE = Path(__file__).parent


@pytest.fixture
def pod(tmp_path, monkeypatch):
    """A workspace with its own locks; ends every process that the test has started."""
    place = Pod(tmp_path, monkeypatch)
    yield place
    place.close()


class Pod:
    def __init__(self, folder, monkeypatch):
        self.workspace = Workspace(folder / "workspace")
        self.trace = folder / "trace"
        monkeypatch.setenv("PILOT_LOCKS", str(folder / "locks"))
        monkeypatch.setenv("TRACE", str(self.trace))
        monkeypatch.setenv("PILOT_STOP_GRACE", "5")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        self.started = {}  # process -> what it prints

    def add(self, name, steps=20, queue=True, **behaviour):
        run = RunDir.create(self.workspace, Resolved(RunConfig(run={"name": name}, training={"steps": steps}), {}))
        (run.path / "behaviour.json").write_text(json.dumps(behaviour))
        if queue:
            run.queue()
        return run

    def start(self, *words):
        path = self.workspace.root.parent / f"output-{len(self.started)}"
        with path.open("wb") as out:
            process = subprocess.Popen([sys.executable, *map(str, words)], stdout=out, stderr=subprocess.STDOUT)
        self.started[process] = path
        return process

    def output(self, process):
        return self.started[process].read_text()

    def worker(self, *options, devices="cpu"):
        return self.start(HERE / "worker_process.py", self.workspace.root, devices, *options)

    def shell(self, run):
        return self.start(HERE / "stand_in_trainer.py", run.path)

    def close(self):
        for process in self.started:
            process.kill()
            process.wait()
        for folder in folders(self.workspace):
            job = Job.read(folder)
            if job is not None and job.process is not None:
                job.process.signal(signal.SIGKILL)


def wait(true, seconds=60.0, what="it"):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)
    return found


def go(run):
    (run.path / "go").touch()


def status(run):
    return (Job.read(run.path) or Job("queued")).status


def last_step(run):
    return max(
        (event["step"] for event in events.history(run.path / "events.jsonl") if event["kind"] == "step"), default=0
    )


def lines(run):
    """The counting trainer's lines in the log, over all its segments."""
    data, cursor = b"", segments.START
    while True:
        part, cursor, _ = segments.read(run.path / "log.txt", cursor)
        if not part:
            return [line.removeprefix("line ") for line in data.decode().splitlines() if line.startswith("line ")]
        data += part


def of_attempt(run, attempt):
    return [int(line.split(":")[1]) for line in lines(run) if line.startswith(f"{attempt}:")]


def test_a_queue_is_worked_off_in_order_one_run_at_a_time(pod):
    first, second, third = pod.add("first", 10), pod.add("second", 10), pod.add("third", 10)
    Queue(pod.workspace).ask("move", "third", 1)
    worker = pod.worker("--until-idle")
    assert worker.wait(90) == 0
    assert [status(run) for run in (first, second, third)] == ["done"] * 3
    expected = [f"{what} {name} " for name in ("third", "first", "second") for what in ("begin", "end")]
    assert pod.trace.read_text().splitlines() == expected  # the CPU's runs see no GPU; begin and end never interleave
    assert (pod.workspace.loras / "first.safetensors").read_text() == "a LoRA"


def test_two_devices_run_two_runs_and_each_sees_only_its_own(pod):
    one, two, three = pod.add("one", 2), pod.add("two", 2), pod.add("three", 2)
    worker = pod.worker("--until-idle", devices="GPU-a,GPU-b")
    assert worker.wait(60) == 0
    told = pod.output(worker)
    assert told.index("one: started on GPU-a") < told.index("two: started on GPU-b") < told.index("three: started on")
    assert [status(run) for run in (one, two, three)] == ["done"] * 3
    seen = {line.split()[1]: line.split()[2] for line in pod.trace.read_text().splitlines()}
    assert (seen["one"], seen["two"]) == ("GPU-a", "GPU-b") and seen["three"] in ("GPU-a", "GPU-b")


def test_the_second_run_of_a_shell_waits_for_the_device(pod):
    one, two = pod.add("one", 5, queue=False, at={"1:3": "hold"}), pod.add("two", 5, queue=False)
    first = pod.shell(one)
    wait(lambda: last_step(one) > 1)
    second = pod.shell(two)
    wait(lambda: (Job.read(two.path) or Job("queued")).reason == "waits for device cpu")
    go(one)
    assert first.wait(90) == 0 and second.wait(90) == 0
    assert [line.split()[:2] for line in pod.trace.read_text().splitlines()] == [
        ["begin", "one"], ["end", "one"], ["begin", "two"], ["end", "two"],
    ]  # fmt: skip


def test_a_killed_worker_leaves_the_trainer_alone_and_the_next_one_attaches(pod):
    run = pod.add("zorp", 40, at={"1:5": "hold", "1:30": "hold"})
    worker = pod.worker()
    wait(lambda: last_step(run) == 4)
    process = Job.read(run.path).process
    worker.kill()
    worker.wait()
    go(run)
    wait(lambda: last_step(run) > 8, what="training on without a worker")
    (run.path / "go").unlink()
    next_worker = pod.worker()
    wait(lambda: "zorp: " in pod.output(next_worker))
    assert "attached to its live trainer" in pod.output(next_worker)
    go(run)
    wait(lambda: status(run) == "done")
    job = Job.read(run.path)
    assert job.attempts == 1 and job.process == process
    assert of_attempt(run, 1) == list(range(1, 41))  # no line lost, none twice


def test_worker_and_trainer_both_killed_then_the_run_continues_from_its_checkpoint(pod):
    run = pod.add("zorp", 20, at={"1:14": "hold"})
    worker = pod.worker()
    wait(lambda: last_step(run) == 13)
    worker.kill()
    worker.wait()
    assert Job.read(run.path).process.signal(signal.SIGKILL)
    wait(lambda: not Job.read(run.path).live)
    assert Job.read(run.path).status == "running" and Job.read(run.path).view == "interrupted"
    pod.worker()
    wait(lambda: status(run) == "done")
    assert of_attempt(run, 2)[0] == 11  # after the last checkpoint, one every five steps
    told = [event["step"] for event in events.history(run.path / "events.jsonl") if event["kind"] == "step"]
    assert told == list(range(1, 21))


def test_a_killed_trainer_is_resumed(pod):
    run = pod.add("zorp", 20, at={"1:13": "die"})
    assert pod.worker("--until-idle").wait(90) == 0
    job = Job.read(run.path)
    assert (job.status, job.attempts, job.failures) == ("done", 2, 0)
    assert of_attempt(run, 2)[0] == 11


def test_a_run_that_fails_without_progress_is_given_up_after_three_retries(pod):
    run = pod.add("zorp", 20, at={f"{attempt}:3": "fail" for attempt in range(1, 9)})
    worker = pod.worker("--until-idle")
    assert worker.wait(90) == 0
    job = Job.read(run.path)
    assert (job.status, job.attempts, job.exit_code) == ("failed", 4, 3)
    assert "RuntimeError: a defect" in job.reason and "4 times" in job.reason


def test_failures_with_progress_in_between_are_not_counted_together(pod):
    run = pod.add("zorp", 36, at={f"{attempt}:{attempt * 6 + 1}": "die" for attempt in range(1, 6)})
    assert pod.worker("--until-idle").wait(90) == 0
    assert (status(run), Job.read(run.path).attempts) == ("done", 6)


def test_bad_input_is_never_tried_again(pod):
    run = pod.add("zorp", 20, at={"1:3": "refuse"})
    assert pod.worker("--until-idle").wait(90) == 0
    job = Job.read(run.path)
    assert (job.status, job.attempts, job.exit_code) == ("failed", 1, 2)
    assert "Add some." in job.reason and "Add some." in (run.path / "log.txt").read_text()


def test_what_a_person_stopped_stays_stopped(pod):
    run = pod.add("zorp", 20, at={"1:4": "hold"})
    worker = pod.worker("--until-idle")
    wait(lambda: last_step(run) == 3)
    asked = time.monotonic()
    ask(run.path, "stop")
    wait(lambda: status(run) == "stopped")
    assert time.monotonic() - asked < 2
    assert worker.wait(90) == 0
    job = Job.read(run.path)
    assert (job.attempts, job.exit_code) == (1, 4)
    shell = pod.shell(run)
    assert shell.wait(90) == 4 and "trainpilot resume zorp" in pod.output(shell)
    assert Job.read(run.path).attempts == 1


def test_a_terminated_trainer_is_resumed(pod):
    run = pod.add("zorp", 20, at={"1:8": "hold"})
    worker = pod.worker("--until-idle")
    wait(lambda: last_step(run) == 7)
    Job.read(run.path).process.signal(signal.SIGTERM)
    assert worker.wait(90) == 0
    job = Job.read(run.path)
    assert (job.status, job.attempts, job.failures) == ("done", 2, 0)
    assert of_attempt(run, 1) + of_attempt(run, 2) == list(range(1, 21))  # the last completed step was saved


def test_a_terminated_worker_lets_trainers_save_and_leaves_within_the_grace(pod):
    run = pod.add("zorp", 20, at={"1:8": "hold"})
    worker = pod.worker()
    wait(lambda: last_step(run) == 7)
    asked = time.monotonic()
    worker.terminate()
    assert worker.wait(90) == 0
    assert time.monotonic() - asked < 5
    job = Job.read(run.path)
    assert (job.status, job.exit_code, job.live) == ("queued", None, False)
    pod.worker()
    wait(lambda: status(run) == "done")
    assert of_attempt(run, 2) == list(range(8, 21))


def test_a_hung_trainer_prints_its_stacks_and_is_restarted(pod):
    run = pod.add("zorp", 20, at={"1:8": "hang"})
    worker = pod.worker("--until-idle")
    assert worker.wait(90) == 0
    assert (status(run), Job.read(run.path).attempts) == ("done", 2)
    log = (run.path / "log.txt").read_text()
    assert "most recent call first" in log and "in train" in log
    assert "no heartbeat for" in pod.output(worker)


def test_a_second_worker_is_refused_by_name(pod):
    worker = pod.worker()
    wait(lambda: (pod.workspace.jobs / "worker.json").is_file())
    second = pod.start("-m", "trainpilot", "worker", "--workspace", pod.workspace.root, "--devices", "cpu")
    assert second.wait(90) == 2
    assert f"process {worker.pid} is one already" in pod.output(second)


def test_a_second_process_of_the_same_run_is_refused_by_name(pod):
    run = pod.add("zorp", 20, queue=False, at={"1:3": "hold"})
    first = pod.shell(run)
    wait(lambda: last_step(run) > 1)
    second = pod.shell(run)
    assert second.wait(90) == 2
    assert f"process {first.pid}" in pod.output(second)
    assert Job.read(run.path).attempts == 1 and status(run) == "running"


def test_a_shells_live_run_is_watched_but_never_stopped_with_the_worker(pod):
    run = pod.add("zorp", 20, queue=False, at={"1:3": "hold"})
    shell = pod.shell(run)
    wait(lambda: last_step(run) > 1)
    worker = pod.worker()
    wait(lambda: "attached" in pod.output(worker))
    worker.terminate()
    assert worker.wait(90) == 0
    assert status(run) == "running" and shell.poll() is None
    go(run)
    assert shell.wait(90) == 0 and status(run) == "done"


def test_a_paused_queue_starts_nothing_until_it_goes_on(pod):
    run, queue = pod.add("zorp", 10), Queue(pod.workspace)
    queue.ask("pause")
    pod.worker()
    wait(lambda: queue.read().paused)
    time.sleep(0.5)
    assert Job.read(run.path).attempts == 0
    queue.ask("resume")
    wait(lambda: status(run) == "done")


def test_interrupt_stops_and_a_second_one_leaves_at_once(pod):
    calm = pod.add("calm", 20, queue=False, at={"1:4": "hold"})
    hung = pod.add("hung", 20, queue=False, at={"1:4": "hang"})
    shell = pod.shell(calm)
    wait(lambda: last_step(calm) == 3)
    os.kill(shell.pid, signal.SIGINT)
    assert shell.wait(20) == 4 and Job.read(calm.path).exit_code == 4
    shell = pod.shell(hung)
    wait(lambda: last_step(hung) == 3)
    os.kill(shell.pid, signal.SIGINT)
    time.sleep(0.5)
    assert shell.poll() is None
    os.kill(shell.pid, signal.SIGINT)
    assert shell.wait(20) == 4
    job = Job.read(hung.path)
    assert (job.status, job.exit_code) == ("stopped", 4) and "second SIGINT" in job.reason


def test_a_done_run_says_so(pod):
    run = pod.add("zorp", 3, queue=False)
    assert pod.shell(run).wait(90) == 0
    again = pod.shell(run)
    assert again.wait(90) == 0 and "is done" in pod.output(again)
    assert Job.read(run.path).attempts == 1


def test_a_reused_pid_is_not_taken_for_the_trainer(pod):
    run = pod.add("zorp", 10)
    stranger = pod.start("-c", "import time; time.sleep(60)")
    live = Identity.of(stranger.pid)
    Job("running", attempts=1, process=Identity(live.pid, live.started - 1, live.boot, live.host), by="worker").write(
        run.path
    )
    assert pod.worker("--until-idle").wait(90) == 0
    assert status(run) == "done" and stranger.poll() is None
