"""Notifications sent by themselves: a real courier looks at real run folders and speaks to a real HTTP server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listening import listening

from controlpilot.notices import Notices
from controlpilot.outbox import KEPT, Outbox
from controlpilot.run_jobs import RunJobs
from controlpilot.settings import Settings
from controlpilot.supervisor import ServiceState
from controlpilot.views.dashboard import DISK_LOW, DISK_VERY_LOW
from controlpilot.views.settings import EVENTS, Preferences, keep
from controlpilot.watch import DISK_BACK, End, Watch
from tests.panel import run_folders as made
from trainpilot.errors import ExitCode
from trainpilot.runs.job import mark
from trainpilot.runs.locks import FolderLock

ALL = Preferences(price_per_hour=3.6, tell_when=list(EVENTS))
GIB = 2**30


class Clock:
    """Unix seconds and steady seconds of a test; both start at the present."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Place:
    """A watch over a workspace, with a clock of its own, and an outbox that one channel listens to."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.workspace = settings, settings.workspace
        self.clock, self.free = Clock(), 100 * GIB
        self.supervisor: FakeStates | None = None
        self.lines: list[str] = []

    def channel(self, address: str, name: str = "phone") -> None:
        Notices(self.settings.secrets).add(name, address.replace("http://", "json://"))

    def outbox(self) -> Outbox:
        return Outbox(self.settings.secrets, self.lines.append, again=(10.0,), clock=self.clock, steady=self.clock)

    def watch(self) -> Watch:
        """A new one, as after a restart."""
        return Watch(
            self.workspace, self.settings.secrets, self.outbox(), RunJobs(self.workspace), self.supervisor,  # type: ignore[arg-type]
            link=lambda path: f"https://pod.example{path}", clock=self.clock, steady=self.clock,
            free=lambda _: self.free,
        )  # fmt: skip

    def looked(self, watch: Watch) -> list[End]:
        """Two looks, far enough apart for everything that has to stand for a while."""
        found = watch.look(ALL)
        self.clock.now += 120
        return found + watch.look(ALL)

    def titles(self) -> list[str]:
        return [one["title"] for one in self.outbox().waiting()]


class FakeStates:
    """In the place of supervisord, whose own client is tested elsewhere: states to choose."""

    def __init__(self) -> None:
        self.state, self.since = "RUNNING", 1.0

    def states(self) -> dict[str, ServiceState]:
        return {"comfyui": ServiceState("comfyui", self.state, "", None, self.since, "exit status 1")}

    def last_lines(self, name: str, count: int) -> str:
        return f"{name}: no module named torch\nHF_TOKEN=hf_{'x' * 20}"


@pytest.fixture
def place(settings: Settings) -> Iterator[Place]:
    there = Place(settings)
    with listening() as (address, received):
        there.channel(address)
        there.received = received  # type: ignore[attr-defined]
        yield there


def failed(place: Place, name: str, reason: str = "CUDA out of memory") -> None:
    run = made.new(place.workspace, name, 20)
    run.begin_attempt("cpu")
    made.train(run, 1, 7, of=20)
    run.finish("failed", reason, ExitCode.FAILED)


def test_an_end_is_told_with_its_result_its_time_its_cost_and_a_link(place) -> None:
    watch = place.watch()
    assert place.looked(watch) == []
    made.finished(place.workspace, "zorp", 20)
    assert place.looked(watch) == [End("zorp", "done")]
    notice = place.outbox().waiting()[0]
    assert notice["title"] == "zorp is done"
    lines = notice["text"].splitlines()
    assert lines[0].startswith("20 of 20 steps, loss 0.") and lines[-1] == "https://pod.example/runs/zorp"
    run = made.new(place.workspace, "long", 20)
    run.begin_attempt("cpu")
    job = run.job.change(times={"started": time.time() - 3600})
    job.write(run.path)
    run.finish("done", "", ExitCode.DONE)
    place.looked(watch)
    text = next(one["text"] for one in place.outbox().waiting() if one["title"] == "long is done")
    assert "took 1 h, cost $3.60 at $3.60 an hour" in text


def test_the_last_run_says_what_the_pod_costs_from_then_on(place) -> None:
    watch = place.watch()
    watch.look(ALL)
    made.new(place.workspace, "next", 20).queue()
    made.finished(place.workspace, "first", 20)
    watch.look(ALL, "it costs on")
    place.clock.now += 10
    assert watch.look(ALL, "it costs on") == [End("first", "done")]
    made.new(place.workspace, "x", 20)
    (place.workspace.outputs / "next").rename(place.workspace.root / "next")
    made.finished(place.workspace, "last", 20)
    watch.look(ALL, "it costs on")
    place.clock.now += 10
    assert watch.look(ALL, "it costs on") == [End("last", "done")]
    texts = {one["title"]: one["text"] for one in place.outbox().waiting()}
    assert "it costs on" in texts["last is done"] and "it costs on" not in texts["first is done"]


def test_nothing_of_the_past_is_told_at_first_and_nothing_twice_after_a_restart(place) -> None:
    made.finished(place.workspace, "old", 20)
    assert place.looked(place.watch()) == [] and place.titles() == []
    failed(place, "new")
    assert place.looked(place.watch()) == [End("new", "failed")]  # it ended while nobody watched
    assert place.looked(place.watch()) == [] and place.titles() == ["new failed"]
    assert "CUDA out of memory" in place.outbox().waiting()[0]["text"]


def test_what_the_worker_tries_again_is_no_end(place) -> None:
    watch = place.watch()
    place.looked(watch)
    failed(place, "zorp")
    assert watch.look(ALL) == []
    run = place.workspace.outputs / "zorp"
    mark(run, FolderLock(run / "run.lock"), "queued", "retry 1 of 3", process=None, exit_code=None, failures=1)
    time.sleep(0.01)  # another mtime of the folder
    assert place.looked(watch) == []
    pre = made.new(place.workspace, "leaves", 20)
    pre.begin_attempt("cpu")
    pre.finish("stopped", "the pod stops", ExitCode.PREEMPTED)
    never = made.new(place.workspace, "never", 20)
    never.queue()
    never.retire("taken out of the queue by a person", ExitCode.STOPPED)
    assert place.looked(watch) == [] and place.titles() == []
    by_hand = made.new(place.workspace, "by-hand", 20)
    by_hand.begin_attempt("cpu")
    by_hand.finish("stopped", "stopped by a person", ExitCode.STOPPED)
    assert place.looked(watch) == [End("by-hand", "stopped")] and place.titles() == ["by-hand was stopped"]


def test_a_run_whose_process_is_gone_is_told_when_no_worker_takes_it_up(place) -> None:
    run = made.new(place.workspace, "zorp", 20)
    watch = place.watch()
    place.looked(watch)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    run.begin_attempt("cpu")
    from trainpilot.runs.process import Identity

    run.job.change(process=Identity.of(child.pid)).write(run.path)
    assert place.looked(watch) == []
    child.kill()
    child.wait()
    watch.look(ALL)
    place.clock.now += 30
    assert watch.look(ALL) == []  # a worker would still take it up
    place.clock.now += 60
    assert watch.look(ALL) == [End("zorp", "interrupted")]
    run.finish("done", "", ExitCode.DONE)
    assert place.looked(watch) == [End("zorp", "done")]  # it was resumed after all


def test_a_loss_that_is_no_number_is_told_once_while_the_run_lives(place) -> None:
    watch = place.watch()
    place.looked(watch)
    run = made.new(place.workspace, "zorp", 20)
    run.begin_attempt("cpu")
    run.events.append("warning", text="only 3 pictures")
    run.events.append("warning", text="loss nan at step 7: rolled back to step-00000005, rates times 0.1 from here on")
    place.looked(watch)
    place.looked(place.watch())
    assert place.titles() == ["zorp: the loss stopped being a number"]
    place.outbox().send_due()
    assert place.titles() == [] and len(place.received) == 1
    place.looked(place.watch())
    assert place.titles() == []


def test_a_disk_that_fills_is_told_once_until_it_has_room_again(place) -> None:
    watch = place.watch()
    place.looked(watch)
    steps = [(DISK_LOW - 1, 1), (DISK_LOW + 1, 1), (DISK_LOW - 1, 1), (DISK_VERY_LOW - 1, 2), (DISK_VERY_LOW - 2, 2)]
    steps += [(int(DISK_LOW * DISK_BACK) + 1, 2), (DISK_LOW - 1, 3)]
    for free, told in steps:
        place.free = free
        place.looked(watch)
        assert len(place.titles()) == told, free
    assert "The disk is full" in place.titles()


def test_a_service_that_does_not_start_is_told_with_its_last_lines(place) -> None:
    place.supervisor = FakeStates()
    watch = place.watch()
    place.looked(watch)
    place.supervisor.state = "FATAL"
    place.looked(watch)
    place.looked(place.watch())
    assert place.titles() == ["comfyui does not start"]
    text = place.outbox().waiting()[0]["text"]
    assert "no module named torch" in text and "hf_" not in text
    place.supervisor.since = 2.0  # it was tried again
    place.looked(watch)
    assert len(place.titles()) == 2


def test_what_nobody_wants_to_know_is_not_told_but_remembered(place) -> None:
    watch = place.watch()
    watch.look(ALL)
    failed(place, "zorp")
    none = Preferences(tell_when=[])
    watch.look(none)
    place.clock.now += 10
    assert watch.look(none) == [End("zorp", "failed")]
    assert place.titles() == [] and place.looked(watch) == []


def test_a_notice_waits_for_a_channel_that_is_away_and_reaches_every_channel_once(place) -> None:
    with listening(status=500) as (deaf, _):
        place.channel(deaf, "deaf")
        box = place.outbox()
        box.put("a", "zorp is done", "20 steps")
        box.put("a", "zorp is done", "20 steps")
        box.send_due()
        box.send_due()
        assert len(place.received) == 1 and place.received[0][1]["title"] == "zorp is done"
        assert place.titles() == ["zorp is done"] and "another try in 10 s" in place.lines[0] and len(place.lines) == 1
    ident = next(one.id for one in Notices(place.settings.secrets).all() if one.name == "deaf")
    with listening() as (address, heard):
        kept = place.settings.secrets / "notifications.json"
        kept.write_text(kept.read_text().replace(deaf.replace("http://", "json://"), address.replace("http", "json")))
        place.outbox().send_due()  # a new process tries at once
        assert len(heard) == 1 and len(place.received) == 1 and place.titles() == []
    box.put("b", "old news", "")
    place.clock.now += KEPT + 1
    box.send_due()
    assert place.titles() == [] and "given up" in place.lines[-1]
    Notices(place.settings.secrets).remove(ident)


@contextlib.contextmanager
def courier(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PILOT_SECRETS": str(settings.secrets), "PILOT_RUN": str(settings.run)}
    command = [sys.executable, "-m", "controlpilot", "courier", "--workspace", str(settings.workspace.root)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_courier_that_is_killed_tells_late_and_only_once(settings: Settings) -> None:
    keep(settings.workspace, ALL)
    memory: Path = settings.secrets / "watch.json"
    with listening() as (address, received):
        Notices(settings.secrets).add("phone", address.replace("http://", "json://"))
        with courier(settings) as first:
            until(memory.is_file)
            first.send_signal(signal.SIGKILL)
            first.wait()
            made.finished(settings.workspace, "zorp", 20)
        with courier(settings) as second:
            until(lambda: received)
            until(lambda: not list((settings.secrets / "outbox").glob("*.json")))
            second.terminate()
            assert second.wait(10) == 0
        with courier(settings):
            time.sleep(5)
    assert [message["title"] for _, message in received] == ["zorp is done"]
    assert str(received[0][1]["message"]).endswith("/runs/zorp")
