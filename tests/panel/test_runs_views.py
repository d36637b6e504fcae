"""The list, one run, samples, actions and the queue, over folders that trainpilot's own classes wrote."""

from __future__ import annotations

import json
import os
import time

import pytest
import run_folders as made

from controlpilot.views import gpu_memory, queue, run, run_actions, run_configuration, samples
from controlpilot.views.refusals import Conflict, NotFound
from controlpilot.views.run_actions import About
from controlpilot.views.run_index import RunIndex, index
from controlpilot.views.runs import folder_of, runs
from trainpilot.errors import ExitCode, PilotError, Problems
from trainpilot.runs.events import history
from trainpilot.runs.job import Job
from trainpilot.runs.locks import FolderLock
from trainpilot.runs.process import Identity
from trainpilot.runs.queue import Queue
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    made.with_time(monkeypatch)
    place = Workspace(tmp_path / "workspace")
    place.outputs.mkdir(parents=True)
    return place


@pytest.fixture
def live(workspace):
    """A run that this very process runs."""
    task = made.new(workspace, "live")
    task.begin_attempt("cpu")
    made.train(task, 1, 45, samples=True)
    task.state.write("train", 45, 100, eta=27.5, force=True, loss=0.1, it_s=2.0)
    yield task
    task.lock.release()


def settled(workspace):
    """Pretend that some time has passed since the folders changed."""
    for folder in workspace.outputs.iterdir():
        os.utime(folder, (time.time() - 60, time.time() - 60))


HOSTILE = ["..", ".", "", "../outputs/a", "a/../a", "a\0b", "/etc", "..\\a", "x" * 101, ".hidden", "a\nb", "nothing"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_run_is_not_found(workspace, name):
    made.finished(workspace, "a", 10)
    with pytest.raises(NotFound):
        folder_of(workspace, name)


def test_a_link_that_leads_out_is_no_run(workspace, tmp_path):
    other = Workspace(tmp_path / "other")
    made.finished(other, "secret", 10)
    (workspace.outputs / "link").symlink_to(other.outputs / "secret")
    with pytest.raises(NotFound):
        folder_of(workspace, "link")
    assert runs(workspace).runs == []


def test_the_list_says_of_each_run_what_its_files_say(workspace, live):
    made.finished(workspace, "finished", 40)
    made.new(workspace, "waiting").queue()
    made.new(workspace, "fresh")
    rows = {row.name: row for row in runs(workspace).runs}
    assert {name: row.status for name, row in rows.items()} == {
        "live": "running", "finished": "done", "waiting": "queued", "fresh": "new",
    }  # fmt: skip
    row = rows["live"]
    assert (row.live, row.step, row.steps, row.eta, row.loss) == (True, 45, 100, 27.5, 0.1)
    done = rows["finished"]
    assert (done.profile, done.base, done.datasets, done.result) == ("standard", "pilot-tiny", ["10_zorp"], True)
    assert (done.step, done.steps, done.eta) == (40, 40, None)


def test_a_run_whose_process_is_gone_is_interrupted(workspace):
    task = made.new(workspace, "killed")
    task.begin_attempt("cpu")
    gone = Identity(os.getpid(), 1.0, "another boot", "here")
    Job.read(task.path).change(process=gone).write(task.path)
    task.lock.release()
    assert runs(workspace).runs[0].status == "interrupted"
    assert run.detail(workspace, "killed").signs[0].key == "ended"


def test_what_can_be_filtered_sorted_and_paged(workspace):
    for number in range(7):
        made.finished(workspace, f"run-{number}", 10 * (number + 1))
    run_actions.describe(workspace, "run-3", About(star=True, tags=["Cats", "cats", " "], title="  The best  one "))
    assert [row.name for row in runs(workspace, show="starred").runs] == ["run-3"]
    assert [row.name for row in runs(workspace, text="BEST zorp").runs] == ["run-3"]
    assert [row.name for row in runs(workspace, tag="cats").runs] == ["run-3"]
    assert runs(workspace).tags == ["cats"]
    assert [row.step for row in runs(workspace, sort="steps").runs] == [70, 60, 50, 40, 30, 20, 10]
    page = runs(workspace, sort="name", page=2, size=3)
    assert ([row.name for row in page.runs], page.pages, page.total) == (
        ["run-4", "run-5", "run-6"],
        3,
        7,
    )  # run-3 goes by its title
    assert runs(workspace, page=99, size=3).page == 3
    assert runs(workspace, show="failed").total == 0 and runs(workspace).counts["done"] == 7


def test_the_index_reads_a_settled_folder_once_and_notices_every_change(workspace, monkeypatch):
    for number in range(4):
        made.finished(workspace, f"run-{number}", 10)
    settled(workspace)
    read = []
    from controlpilot.views import run_index

    real = run_index.read_row
    monkeypatch.setattr(run_index, "read_row", lambda path: read.append(path.name) or real(path))
    kept = index(workspace)
    kept.rows()
    assert len(read) == 4
    kept.rows()
    assert len(read) == 4
    run_actions.describe(workspace, "run-2", About(star=True))
    assert {row.name for row in kept.rows()[0] if row.star} == {"run-2"}
    assert set(read[4:]) == {"run-2"}


def test_the_index_is_a_cache_that_may_be_deleted_or_damaged(workspace, monkeypatch):
    made.finished(workspace, "one", 10)
    settled(workspace)
    RunIndex(workspace).rows()
    kept = workspace.cache / "panel" / "runs.json"
    assert [row["name"] for row in json.loads(kept.read_text())["rows"]] == ["one"]
    from controlpilot.views import run_index

    monkeypatch.setattr(run_index, "read_row", None)  # what is kept is believed: nothing is read
    assert [row.name for row in RunIndex(workspace).rows()[0]] == ["one"]
    monkeypatch.undo()
    for damage in ("", "{", '{"schema": 1, "rows": [3]}', '{"schema": 1, "rows": [{}]}', '{"schema": 99, "rows": []}'):
        kept.write_text(damage)
        assert [row.name for row in RunIndex(workspace).rows()[0]] == ["one"]


def test_a_look_without_time_says_how_many_it_has_not_read(workspace):
    for number in range(5):
        made.finished(workspace, f"run-{number}", 10)
    fresh = RunIndex(workspace)
    rows, missing = fresh.rows(budget=-1)
    assert (len(rows), missing) == (1, 4)
    assert fresh.rows()[1] == 0


def test_damaged_files_leave_a_row_and_no_crash(workspace):
    task = made.finished(workspace, "damaged", 10)
    (task.path / "job.json").write_text("{")
    (task.path / "meta.json").write_text('{"title": 3, "tags": {}, "star": "yes"}')
    (task.path / "state.json").write_text('{"phase": 7, "step": "x"}')
    (task.path / "run.toml").write_text("= broken")
    row = runs(workspace).runs[0]
    assert (row.name, row.status, row.star, row.tags) == ("damaged", "new", False, [])
    assert "run.toml cannot be read" in row.reason
    run.detail(workspace, "damaged")
    with pytest.raises(PilotError):
        run_configuration.configuration(workspace, "damaged")


def test_one_run_live(workspace, live):
    found = run.detail(workspace, "live")
    progress = found.progress
    assert (progress.words, progress.place, progress.step, progress.of) == ("training", "train", 45, 100)
    assert progress.share == 0.45 and progress.eta == 27.5 and progress.memory_gb == pytest.approx(7.42)
    assert [(one.step, one.complete, one.newest) for one in found.checkpoints] == [(40, True, True), (20, True, False)]
    assert (found.can.stop, found.can.save, found.can.sample) == ("", "", "")
    assert "running" in found.can.resume and "live" in found.can.trash
    assert found.planned_seconds == 50 and found.steps_left == 55
    assert {"checkpoints", "samples", "device"} <= {sign.key for sign in found.signs}


def test_one_run_done(workspace):
    made.finished(workspace, "done", 60)
    found = run.detail(workspace, "done")
    assert (found.progress.place, found.progress.words, found.progress.share) == ("share", "finished", 1.0)
    assert found.result == "done.safetensors" and found.result_bytes == 20_000
    assert found.can.trash == "" and found.can.stop and "more steps" in found.can.resume


def test_a_checkpoint_that_is_being_written_is_not_complete_and_is_not_sent(workspace):
    task = made.finished(workspace, "one", 40)
    (made.checkpoint(task, 60) / "COMMITTED").unlink()
    (task.checkpoints / ".writing-step-00000080-1").mkdir()
    found = run.checkpoints(task.path)
    assert [(one.step, one.complete) for one in found] == [(60, False), (40, True), (20, True)]
    assert run.checkpoint_file(task.path, 40).name == "one-step00000040.safetensors"
    for step in (60, 80, 1):
        with pytest.raises(NotFound):
            run.checkpoint_file(task.path, step)


def test_the_samples_are_a_matrix_with_what_each_png_says(workspace, live):
    found = samples.matrix(live.path)
    assert found.steps == [40, 20] and found.prompts == list(made.PROMPTS)
    cell = found.cells[0][1]
    assert (cell.seed, cell.prompt, cell.step, cell.width) == ("42", made.PROMPTS[1], 40, 128)
    assert cell.settings["guidance"] == "7" and 0.05 < cell.bytes_per_pixel < 3
    (live.samples / "step-00000020_p0.png").unlink()
    assert samples.matrix(live.path).cells[1][0] is None
    assert samples.matrix(live.path, before=40).steps == [20]


@pytest.mark.parametrize(
    "name", ["../run.toml", "step-1_p0.png/../x", "step-1_p0.jpg", "x", "", "step-00000040_p0.png\0", "link"]
)
def test_a_sample_name_that_is_none_is_not_found(workspace, live, name):
    (live.samples / "step-00000099_p0.png").symlink_to("/etc/passwd")
    for one in (name, "step-00000099_p0.png"):
        with pytest.raises(NotFound):
            samples.file_of(live.path, one)


def test_a_png_of_somebody_elses_making_does_no_harm(workspace, live):
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, b"GIF89a" + b"\0" * 99):
        (live.samples / "step-00000060_p0.png").write_bytes(content)
        assert samples.read(live.path, "step-00000060_p0.png") is None
    assert samples.matrix(live.path).steps[0] == 60


def test_a_request_reaches_the_live_attempt_and_no_other(workspace, live):
    for kind in ("stop", "save", "sample"):
        run_actions.request(workspace, "live", kind)
        time.sleep(0.3)
        assert live.requests.take(kind)
    made.finished(workspace, "over", 10)
    with pytest.raises(Conflict):
        run_actions.request(workspace, "over", "stop")
    assert not (workspace.outputs / "over" / "requests" / "stop").exists()


def test_resume_puts_a_stopped_run_back_and_says_where_it_goes_on(workspace):
    task = made.new(workspace, "stopped")
    task.begin_attempt("cpu")
    made.train(task, 1, 45)
    task.finish("stopped", "by a person", ExitCode.STOPPED)
    assert "after step 40" in run_actions.resume(workspace, "stopped")
    assert task.job.status == "queued"
    with pytest.raises(Conflict, match="waiting already"):
        run_actions.resume(workspace, "stopped")


def test_a_finished_run_needs_a_change_to_go_on(workspace):
    made.finished(workspace, "done", 40)
    with pytest.raises(Conflict, match="more steps"):
        run_actions.resume(workspace, "done")
    with pytest.raises(Problems):
        run_actions.resume(workspace, "done", ["training.steps=none of your business"])
    assert Job.read(workspace.outputs / "done").status == "done"


def test_a_live_run_is_not_trashed_and_an_ended_one_comes_back_whole(workspace, live):
    with pytest.raises(Conflict, match="Stop it first"):
        run_actions.trash(workspace, "live")
    task = made.finished(workspace, "old", 40)
    before = sorted(path.relative_to(task.path) for path in task.path.rglob("*"))
    undo = run_actions.trash(workspace, "old")
    assert not task.path.exists() and [row.name for row in runs(workspace).runs] == ["live"]
    assert not (workspace.loras / "old.safetensors").is_symlink()
    assert run_actions.restore(workspace, undo.id) == "old"
    assert {*before} <= {path.relative_to(task.path) for path in task.path.rglob("*")}
    assert (workspace.loras / "old.safetensors").resolve() == task.result
    assert len([event for event in history(task.path / "events.jsonl") if event["kind"] == "step"]) == 40
    with pytest.raises(NotFound):
        run_actions.restore(workspace, undo.id)


def test_a_run_that_another_process_holds_is_not_trashed(workspace):
    task = made.finished(workspace, "held", 10)
    lock = FolderLock(task.path / "run.lock")
    assert lock.acquire()
    with pytest.raises(Conflict):
        run_actions.trash(workspace, "held")
    lock.release()
    run_actions.trash(workspace, "held")


def test_a_waiting_run_is_not_trashed(workspace):
    made.new(workspace, "waiting").queue()
    with pytest.raises(Conflict, match="queue"):
        run_actions.trash(workspace, "waiting")


def test_two_runs_differ_where_their_settings_do(workspace):
    made.finished(workspace, "a", 40)
    made.finished(workspace, "b", 80, network__rank=64, optimizer__learning_rate=5e-5)
    found = {one.path: (one.here, one.there) for one in run_configuration.difference(workspace, "a", "b")}
    assert found["network.rank"][1] == "64" and found["training.steps"] == ("40", "80")
    assert set(found) == {"network.rank", "training.steps", "optimizer.learning_rate"}
    about = run_configuration.configuration(workspace, "a")
    steps = next(one for one in about.settings if one.path == "training.steps")
    assert (steps.value, steps.source) == ("40", "--set") and "updates" in steps.help
    assert about.command.startswith("trainpilot")


def test_the_queue_says_what_waits_for_what(workspace, live):
    for name in ("first", "second"):
        made.new(workspace, name).queue()
    shown = queue.queue(workspace)
    assert not shown.worker and "Services page" in shown.remedy
    assert [(one.run.name, one.place) for one in shown.waiting] == [("first", 1), ("second", 2)]
    assert all("No worker" in one.why for one in shown.waiting)
    workspace.jobs.mkdir(exist_ok=True)
    told = {"working": True, "process": Identity.own().as_dict(), "devices": ["cpu"]}
    (workspace.jobs / "worker.json").write_text(json.dumps(told))
    shown = queue.queue(workspace)
    assert shown.worker and [one.run for one in shown.devices] == ["live"]
    assert shown.waiting[0].why == "Waits for live to end." and shown.waiting[1].why == "1 run is before it."
    queue.change(workspace, "pause", "first")
    assert queue.queue(workspace).waiting[0].why == "This run is paused."
    queue.change(workspace, "pause")
    assert {one.why for one in queue.queue(workspace).waiting} == {"The queue is paused."}
    queue.change(workspace, "resume")
    queue.change(workspace, "resume", "first")
    assert queue.queue(workspace).waiting[0].why.startswith("Waits for")


def test_the_order_is_changed_by_place_and_by_steps(workspace):
    for name in "abcd":
        made.new(workspace, name).queue()
        time.sleep(0.01)

    def names():
        return [one.run.name for one in queue.queue(workspace).waiting]

    queue.change(workspace, "move", "d", 1)
    assert names() == ["d", "a", "b", "c"]
    queue.change(workspace, "down", "d")
    assert names() == ["a", "d", "b", "c"]
    queue.change(workspace, "up", "c")
    assert names() == ["a", "d", "c", "b"]
    queue.change(workspace, "last", "a")
    queue.change(workspace, "first", "b")
    assert names() == ["b", "d", "c", "a"]
    Queue(workspace).apply()
    assert names() == ["b", "d", "c", "a"]
    queue.remove(workspace, "d")
    assert names() == ["b", "c", "a"]
    with pytest.raises(Conflict):
        queue.remove(workspace, "d")
    with pytest.raises(Conflict):
        queue.change(workspace, "up", "d")
    with pytest.raises(NotFound):
        queue.change(workspace, "up", "../x")
    with pytest.raises(PilotError):
        queue.change(workspace, "move")


def test_a_run_waits_where_another_program_holds_the_gpu(workspace, monkeypatch):
    made.new(workspace, "waiting").queue()
    workspace.jobs.mkdir(exist_ok=True)
    told = {"working": True, "process": Identity.own().as_dict(), "devices": ["GPU-1"]}
    (workspace.jobs / "worker.json").write_text(json.dumps(told))
    holder = gpu_memory.Holder(
        device="GPU-1", device_name="NVIDIA L4", pid=1, name="ComfyUI", bytes=9_100_000_000, total=24_000_000_000
    )
    monkeypatch.setattr(gpu_memory, "holders", lambda: [holder])
    shown = queue.queue(workspace)
    assert shown.devices[0].others == ["ComfyUI holds 9.1 GB of 24.0 GB"]
    assert "ComfyUI holds 9.1 GB" in shown.waiting[0].why and "Services page" in shown.waiting[0].remedy


def test_little_memory_and_our_own_run_are_no_obstacle():
    def held(pid, size):
        return gpu_memory.Holder(device="g", device_name="g", pid=pid, name="x", bytes=size, total=10**10)

    found = [held(1, 10**8), held(2, 5 * 10**9), held(3, None)]
    assert [one.pid for one in gpu_memory.obstacles("g", found, {2})] == [3]
    assert gpu_memory.obstacles("other", found, set()) == []


def test_without_a_gpu_nobody_holds_one():
    assert gpu_memory.holders() == [] or gpu_memory.holders()[0].total > 0


def test_a_stop_of_a_run_that_waits_in_a_shell_is_a_signal_to_its_process(workspace):
    """As `execute` leaves it while it waits for a device: queued, with a live process."""
    import signal
    import subprocess
    import sys

    task = made.new(workspace, "shell")
    # A shell's background jobs ignore SIGINT, and their children inherit that.
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    try:
        Job("queued", "waits for device cpu", process=Identity.of(process.pid)).write(task.path)
        run_actions.request(workspace, "shell", "stop")
        assert process.wait(10) == -signal.SIGINT
    finally:
        process.kill()
        process.stdout.close()
