"""Run folders: made once and never over another, locked by one process, true in every file."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode, PilotError, RunFailed
from trainpilot.runs import atomic, locks
from trainpilot.runs.events import history
from trainpilot.runs.job import Job
from trainpilot.runs.process import Identity, boot_id
from trainpilot.runs.requests import Requests, ask
from trainpilot.runs.rundir import RunDir, folders
from trainpilot.runs.state import StateFile, heartbeat_age, read_state
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return Workspace(tmp_path / "workspace")


def resolved(**run):
    return Resolved(RunConfig(run=run), {"run.name": "--name"})


def elsewhere(code, *words):
    """What `code` prints in another process."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_name_that_is_taken_gets_a_number_and_says_so(workspace):
    names = [RunDir.create(workspace, resolved(name="zorp")) for _ in range(3)]
    assert [run.name for run in names] == ["zorp", "zorp-2", "zorp-3"]
    assert names[2].notes == ["run zorp exists; this one is named zorp-3"]
    assert RunDir.open(names[2].path).config.run.name == "zorp-3"
    assert [path.name for path in folders(workspace)] == ["zorp", "zorp-2", "zorp-3"]


def test_the_longest_name_still_takes_a_number(workspace):
    longest = "z" * 100
    RunDir.create(workspace, resolved(name=longest))
    second = RunDir.create(workspace, resolved(name=longest))
    assert second.name == "z" * 98 + "-2" and RunDir.open(second.path).config.run.name == second.name


def test_a_run_without_a_name_is_named_after_its_data_and_the_time(workspace):
    config = RunConfig(datasets=[{"path": "/data/10_zorp the second"}])
    run = RunDir.create(workspace, Resolved(config, {}))
    assert re.fullmatch(r"zorp-the-second-\d{8}-\d{6}", run.name)


def test_what_is_written_is_what_is_opened(workspace):
    made = resolved(name="zorp", seed=7)
    run = RunDir.create(workspace, made, {"steps": 12})
    opened = RunDir.open(run.path)
    assert opened.config.model_dump() == run.config.model_dump()
    assert opened.resolved.sources["run.name"] == "--name"
    assert history(run.path / "events.jsonl")[0]["steps"] == 12
    assert made.config.run.seed == 7 and (run.workspace.logs / "tb" / "zorp").resolve() == run.logs
    changed = Resolved(run.config.model_copy(update={"comment": "x"}), {})
    changed.config.run.seed = 8
    assert opened.change(changed).name == "run.2.toml"
    assert RunDir.open(run.path).config.run.seed == 8
    assert RunDir.find(workspace, "zorp").path == RunDir.find(workspace, str(run.path)).path == run.path


def test_a_folder_that_is_no_run_and_a_misspelt_name_are_refused(workspace, tmp_path):
    RunDir.create(workspace, resolved(name="zorp"))
    with pytest.raises(PilotError, match=r"no run\.toml"):
        RunDir.open(tmp_path)
    with pytest.raises(PilotError, match="Did you mean zorp"):
        RunDir.find(workspace, "zrop")


def test_the_tenth_change_is_newer_than_the_second(workspace):
    run = RunDir.create(workspace, resolved(name="zorp", seed=1))
    for seed in range(2, 12):
        config = run.config.model_copy(deep=True)
        config.run.seed = seed
        run.change(Resolved(config, {}))
    assert RunDir.open(run.path).config.run.seed == 11


def test_attempts_count_and_the_end_is_written(workspace):
    run = RunDir.create(workspace, resolved(name="zorp"))
    assert (run.attempt, run.job) == (0, None)
    assert run.begin_attempt("cpu") == 1
    job = Job.read(run.path)
    assert (job.status, job.device, job.process) == ("running", "cpu", Identity.own()) and job.live
    run.result.write_text("a LoRA")
    run.finish("done", "", ExitCode.DONE)
    job = Job.read(run.path)
    assert (job.status, job.exit_code, job.live, job.view) == ("done", 0, False, "done")
    assert (workspace.loras / "zorp.safetensors").resolve() == run.result
    assert run.begin_attempt() == 2
    assert history(run.path / "events.jsonl")[-1]["kind"] == "end"


def test_a_file_of_the_users_is_not_replaced_by_a_link(workspace):
    run = RunDir.create(workspace, resolved(name="zorp"))
    workspace.loras.mkdir(parents=True)
    (workspace.loras / "zorp.safetensors").write_text("mine")
    run.begin_attempt()
    run.result.write_text("new")
    run.finish("done", "", ExitCode.DONE)
    assert (workspace.loras / "zorp.safetensors").read_text() == "mine"
    assert any("could not be made a link" in event.get("text", "") for event in history(run.path / "events.jsonl"))


def test_guide_001_finds_the_newest_pictures_and_checkpoints(workspace):
    output = workspace.root / "lora_training" / "output"
    output.mkdir(parents=True)
    first, second = (RunDir.create(workspace, resolved(name=name)) for name in ("flux_fast", "flux_final"))
    (second.samples / "step-00000100_p0.png").write_text("a picture")
    assert [path.name for path in (output / "samples").iterdir()] == ["step-00000100_p0.png"]
    for step in (10, 20):
        lora = second.checkpoints / f"step-{step:08d}" / f"flux_final-step{step:08d}.safetensors"
        lora.parent.mkdir(parents=True)
        lora.write_text(str(step))
        second.show_checkpoint(lora)
    assert (output / "flux_final_checkpoint.safetensors").read_text() == "20"
    first.begin_attempt()
    first.result.write_text("a LoRA")
    first.finish("done", "", ExitCode.DONE)
    assert (output / "flux_fast.safetensors").read_text() == "a LoRA"
    moved = workspace.root.rename(workspace.root.with_name("moved"))
    assert (moved / "lora_training" / "output" / "flux_final_checkpoint.safetensors").read_text() == "20"


TAKE = """
import sys; from pathlib import Path; from trainpilot.runs.locks import FolderLock
lock = FolderLock(Path(sys.argv[1])); print(lock.free(), lock.acquire())
"""


def test_one_process_at_a_time_runs_a_run(workspace):
    run = RunDir.create(workspace, resolved(name="zorp"))
    run.begin_attempt()
    assert elsewhere(TAKE, run.path / "run.lock") == "False False"
    with pytest.raises(PilotError, match=rf"process {os.getpid()} on .* is running it"):
        RunDir.open(run.path).begin_attempt()
    run.finish("stopped", "", ExitCode.STOPPED)
    assert elsewhere(TAKE, run.path / "run.lock") == "True True"


def test_the_lock_holds_where_the_volumes_flock_lets_everybody_in(workspace, monkeypatch):
    run = RunDir.create(workspace, resolved(name="zorp"))
    monkeypatch.setattr(locks.FileLock, "works", lambda self: False)
    run.begin_attempt()
    assert any("only the lock on local disk" in event.get("text", "") for event in history(run.path / "events.jsonl"))
    run.lock.volume.release()  # as if it had never kept anybody out
    assert elsewhere(TAKE, run.path / "run.lock") == "False False"


def test_flock_works_on_this_disk_and_leaves_nothing_behind(tmp_path):
    assert locks.flock_works(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not locks.flock_works(tmp_path / "missing")


def test_the_kernel_lets_go_of_a_device_when_its_process_dies(workspace):
    code = "import os; from trainpilot.runs.locks import device_lock; l = device_lock('GPU/1'); print(l.acquire()); {}"
    assert elsewhere(code.format("os.kill(os.getpid(), 9) if False else None")) == "True"
    lock = locks.device_lock("GPU/1")
    assert lock.acquire(run="mine")
    assert elsewhere(code.format("")) == "False"
    assert lock.holder()["run"] == "mine"
    assert lock.path.parent == Path(os.environ["PILOT_LOCKS"])


def test_a_process_that_left_or_whose_pid_was_reused_is_not_live():
    own = Identity.own()
    assert own.alive() and Identity.parse(own.as_dict()) == own
    assert not Identity(own.pid, own.started - 1, own.boot, own.host).alive()
    assert not Identity(own.pid, own.started, "another boot", own.host).alive()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(child.pid)
    assert identity.alive()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.alive()  # a zombie is not alive
    child.communicate()
    assert not identity.signal(0)
    assert Identity.parse({"pid": "x"}) is None


def test_a_crash_reads_as_interrupted(workspace):
    run = RunDir.create(workspace, resolved(name="zorp"))
    own = Identity.own()
    Job("running", attempts=1, process=Identity(own.pid, own.started - 1, own.boot, own.host)).write(run.path)
    assert Job.read(run.path).view == "interrupted"
    (run.path / "job.json").write_bytes(b'{"status": "runn')
    assert Job.read(run.path) is None


def test_requests_name_an_attempt_and_stale_ones_are_ignored(workspace, monkeypatch):
    monkeypatch.setattr("trainpilot.runs.requests.GAP", 0.0)
    run = RunDir.create(workspace, resolved(name="zorp"))
    ask(run.path, "stop")
    run.begin_attempt()
    assert not run.requests.take("stop")  # what was asked before the attempt began is not meant for it
    ask(run.path, "save")
    assert (run.path / "requests" / "save").read_text() == "1\n"
    assert run.requests.take("save") and not run.requests.take("save")
    (run.path / "requests" / "sample").touch()
    assert run.requests.take("sample")
    for stale in ("7", "nonsense", "\udcff"):
        (run.path / "requests" / "stop").write_text(stale, errors="surrogateescape")
        assert not run.requests.take("stop")
        assert not (run.path / "requests" / "stop").exists()
    assert sum("was ignored" in event.get("text", "") for event in history(run.path / "events.jsonl")) == 3
    with pytest.raises(PilotError):
        ask(run.path, "explode")


def test_looking_for_requests_touches_the_disk_only_now_and_then(workspace, monkeypatch):
    run = RunDir.create(workspace, resolved(name="zorp"))
    looks = []
    monkeypatch.setattr(Path, "read_bytes", lambda self: looks.append(self) or b"")
    requests = Requests(run)
    for _ in range(1000):
        requests.take("stop")
    assert len(looks) <= 2  # a thousand looks take far less than two gaps of a quarter second


def test_state_is_whole_and_its_heartbeat_ages_on_a_clock_nobody_sets(tmp_path, monkeypatch):
    state = StateFile(tmp_path / "state.json", attempt=2)
    state.write("train", 3, 10, 1, eta=7.5, loss=0.25)
    found = read_state(state.path)
    assert {key: found[key] for key in ("phase", "step", "of", "epoch", "eta", "loss", "attempt")} == {
        "phase": "train", "step": 3, "of": 10, "epoch": 1, "eta": 7.5, "loss": 0.25, "attempt": 2,
    }  # fmt: skip
    assert found["heartbeat"]["boot"] == boot_id()
    monkeypatch.setattr("time.time", lambda: 0.0)  # a wall clock set back by decades
    assert 0 <= heartbeat_age(found) < 5
    assert heartbeat_age(found | {"heartbeat": {"monotonic": 0.0, "boot": "another"}}) is None
    assert heartbeat_age(None) is None


def test_state_is_written_at_most_twice_a_second_but_a_new_phase_at_once(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("trainpilot.runs.state.monotonic", lambda: now[0])
    state, seen = StateFile(tmp_path / "state.json"), []
    for step in range(100):
        now[0] += 0.125
        state.write("train", step, 100)
        state.settle()
        seen.append(read_state(state.path)["step"])
    assert len(set(seen)) == 25  # 12.5 seconds at two a second
    state.write("save", 99, 100)
    assert read_state(state.path)["phase"] == "save"
    before = read_state(state.path)["heartbeat"]
    now[0] += 5
    state.beat()
    state.settle()
    assert read_state(state.path)["heartbeat"]["monotonic"] > before["monotonic"]


def test_no_step_waits_for_a_slow_volume_and_the_phase_after_it_is_true(tmp_path, monkeypatch):
    now, slow = [100.0], threading.Event()
    monkeypatch.setattr("trainpilot.runs.state.monotonic", lambda: now[0])
    state, written = StateFile(tmp_path / "state.json"), []
    state.write("train", 0, 100)

    def write(path, document, *, durable):
        written.append(document["step"])
        assert slow.wait(60)
        atomic.write_json(path, document, durable=durable)

    monkeypatch.setattr("trainpilot.runs.state.write_json", write)
    for step in range(1, 9):
        now[0] += 1
        state.write("train", step, 100)  # would wait for ever
    slow.set()
    state.write("save", 8, 100)
    assert read_state(state.path)["phase"] == "save" and written == [1, 8]


def test_a_disk_that_fills_up_is_told_at_the_next_step(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("trainpilot.runs.state.monotonic", lambda: now[0])
    state = StateFile(tmp_path / "there" / "state.json")
    state.path.parent.mkdir()
    state.write("train", 0, 100)
    shutil.rmtree(state.path.parent)
    now[0] += 1
    state.write("train", 1, 100)
    now[0] += 1
    with pytest.raises(RunFailed, match="No such file"):
        while True:  # the thread may take its time
            state.write("train", 2, 100)
            now[0] += 1


def test_a_failed_replacement_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "job.json"
    atomic.write_json(path, {"status": "done"})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_json(path, {"status": "failed"})
    assert json.loads(path.read_text()) == {"status": "done"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["job.json"]
