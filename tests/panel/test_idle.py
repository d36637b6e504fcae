"""The idle stop: what keeps a pod on, the countdown, and stopping it through real HTTP and real processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening import listening
from provider import KEY, Provider, provider

from controlpilot.idle import IdleState, IdleStop, Life, Times, Wish, ask, read_idle
from controlpilot.life import TRAFFIC, LifeSigns, mark_seen
from controlpilot.lookout import STOPS_POD, Lookout
from controlpilot.notices import Notices
from controlpilot.outbox import Outbox
from controlpilot.pod_stop import NotStopped, PodStop
from controlpilot.run_jobs import RunJobs
from controlpilot.settings import Settings
from controlpilot.telemetry import Gpu
from controlpilot.views.settings import Preferences, keep
from tests.panel import run_folders as made
from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.atomic import write_json
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.queue import Queue

TIMES = Times(countdown=60.0, last_words=0.2, again=(10.0, 30.0), accepted=100.0)
RUNPOD = {"RUNPOD_POD_ID": "abc123xyz", "RUNPOD_API_KEY": KEY}
VAST = {"VAST_CONTAINERLABEL": "C.7654321", "CONTAINER_API_KEY": KEY}
BUSY, ALONE, SOMEBODY = Life(work=["run zorp is at work"]), Life(), Life(people=["somebody uses the panel"])


class Pod:
    """An idle stop with its provider and a clock of its own."""

    def __init__(self, settings: Settings, cloud: Provider, environment: dict[str, str]) -> None:
        self.settings, self.cloud = settings, cloud
        self.now, self.lines = 1_000_000.0, []  # type: float, list[str]
        self.choice = PodStop(settings.secrets, environment, cloud.hosts)
        self.outbox = Outbox(settings.secrets, self.lines.append)
        self.stop = self.again()

    def again(self) -> IdleStop:
        """A new one, as after a restart of the courier."""
        return IdleStop(
            self.settings.workspace, self.choice, self.outbox, self.lines.append, times=TIMES, steady=lambda: self.now
        )

    def after(self, seconds: float, life: Life = ALONE, minutes: int | None = 30) -> IdleState:
        self.now += seconds
        state = self.stop.look(life, Wish(minutes))
        assert read_idle(self.settings.workspace) == state and state.live
        return state


@pytest.fixture
def cloud() -> Iterator[Provider]:
    with provider() as here:
        yield here


@pytest.fixture
def pod(settings: Settings, cloud: Provider) -> Pod:
    made_ = Pod(settings, cloud, RUNPOD)
    made_.choice.save("runpod")
    return made_


# --- when -------------------------------------------------------------------------------------------------------------


def test_an_idle_pod_is_stopped_after_its_minutes_and_a_countdown(pod: Pod) -> None:
    assert pod.after(0, BUSY).phase == "awake"
    quiet = pod.after(29 * 60)
    assert quiet.phase == "quiet" and quiet.at is not None and pod.cloud.asked == []
    counting = pod.after(60)
    assert counting.phase == "countdown" and "nothing was going on for 30 min" in counting.why
    assert pod.after(TIMES.countdown - 1).phase == "countdown" and pod.cloud.asked == []
    assert pod.after(2).phase == "asked"
    assert pod.cloud.stopped == ["abc123xyz"]
    pod.after(1)
    assert len(pod.cloud.asked) == 1


@pytest.mark.parametrize("life", [BUSY, SOMEBODY])
def test_whatever_goes_on_ends_the_countdown_and_the_time_begins_anew(pod: Pod, life: Life) -> None:
    pod.after(30 * 60)
    assert pod.after(10, life).phase == "awake"
    assert pod.after(29 * 60).phase == "quiet"
    assert pod.after(61).phase == "countdown" and pod.cloud.asked == []


def test_a_countdown_can_be_cancelled_and_the_time_begins_anew(pod: Pod) -> None:
    pod.after(30 * 60)
    ask(pod.settings.workspace, "stay")
    assert pod.after(1).phase == "quiet"
    assert pod.after(29 * 60).phase == "quiet" and pod.after(60).phase == "countdown"
    assert pod.after(1, minutes=None).phase == "off", "switched off meanwhile"
    assert pod.cloud.asked == []


def test_when_all_is_done_the_pod_stops_although_somebody_looks(pod: Pod) -> None:
    pod.stop.want("run zorp is done")
    assert pod.after(1, Life(work=["run second waits"]), minutes=None).phase == "waits"
    pod.stop = pod.again()  # a restart does not forget it
    assert pod.after(1, SOMEBODY, minutes=None).phase == "countdown"
    assert pod.after(1, BUSY, minutes=None).phase == "waits", "a run that was started meanwhile goes first"
    pod.after(1, SOMEBODY, minutes=None)
    ask(pod.settings.workspace, "stay")
    assert pod.after(1, SOMEBODY, minutes=None).phase == "off"
    ask(pod.settings.workspace, "stop")
    assert pod.after(1, SOMEBODY, minutes=None).phase == "countdown"
    assert pod.after(61, SOMEBODY, minutes=None).phase == "asked" and pod.cloud.stopped == ["abc123xyz"]


def test_without_an_action_nothing_is_ever_stopped(pod: Pod) -> None:
    pod.choice.save("none")
    assert pod.after(10**6).phase == "off"
    pod.choice.save("vast")  # no key, no ID
    assert pod.after(10**6).phase == "off" and pod.cloud.asked == []
    with pytest.raises(PilotError):
        ask(pod.settings.workspace, "explode")  # type: ignore[arg-type]


def test_a_state_that_nobody_keeps_up_is_not_live(pod: Pod) -> None:
    pod.after(30 * 60)
    path = pod.settings.workspace.jobs / "idle.json"
    assert read_idle(pod.settings.workspace).live
    text = path.read_text()
    path.write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 4194303'))
    assert not read_idle(pod.settings.workspace).live
    path.write_text('{"phase": "dancing"}')
    assert read_idle(pod.settings.workspace) == IdleState()


# --- how --------------------------------------------------------------------------------------------------------------


def test_errors_are_tried_again_and_told(pod: Pod) -> None:
    with listening() as (address, received):
        Notices(pod.settings.secrets).add("phone", address.replace("http://", "json://"))
        pod.cloud.errors = [401, 503, 503]
        pod.after(30 * 60)
        state = pod.after(TIMES.countdown)
        assert state.phase == "failed" and "RunPod: answered 401. Save a key" in state.error
        assert pod.after(9).phase == "failed" and len(pod.cloud.asked) == 1
        assert "answered 503" in pod.after(1).error
        assert pod.after(30).tries == 3
        assert pod.after(30).phase == "asked" and pod.cloud.stopped == ["abc123xyz"]
        pod.outbox.send_due()
        titles = [message["title"] for _, message in received]
        assert titles.count("The pod could not be stopped") == 2  # 401 and 503, each once
        assert titles[0] == "The pod stops now"
        assert all(KEY not in str(message) for message in (received, pod.lines, state))


def test_a_request_that_was_taken_and_had_no_effect_is_made_again(pod: Pod) -> None:
    pod.after(30 * 60)
    assert pod.after(TIMES.countdown).phase == "asked"
    state = pod.after(TIMES.accepted)
    assert state.phase == "failed" and "still runs" in state.error
    assert pod.after(10).phase == "asked" and pod.cloud.stopped == ["abc123xyz"] * 2


def test_vast_is_asked_with_what_it_gives_to_an_instance(settings: Settings, cloud: Provider) -> None:
    choice = PodStop(settings.secrets, VAST, cloud.hosts)
    choice.save("vast")
    assert (choice.choice().pod, choice.choice().key, choice.choice().ready) == ("7654321", "environment", "")
    assert choice.act() == "Vast took the request"
    assert cloud.asked == ["PUT /api/v0/instances/7654321/"] and cloud.stopped == ["7654321"]
    cloud.refuses = True
    with pytest.raises(NotStopped, match="no such state"):
        choice.act()


@pytest.mark.parametrize("status", [302, 404, 429, 500])
def test_an_answer_that_is_no_success_is_an_error_that_names_it(pod: Pod, status: int) -> None:
    pod.cloud.errors = [status]
    with pytest.raises(NotStopped, match=f"answered {status}"):
        pod.choice.act()
    assert len(pod.cloud.asked) == 1, "a redirect is not followed: it would carry the key along"


def test_a_provider_that_is_not_there_is_an_error(settings: Settings) -> None:
    choice = PodStop(settings.secrets, RUNPOD, {"runpod": "http://127.0.0.1:9", "vast": ""})
    choice.save("runpod")
    with pytest.raises(NotStopped, match="could not be reached"):
        choice.act()


def test_keys_are_kept_closed_and_taken_over_from_an_environment_that_loses_them(settings: Settings) -> None:
    choice = PodStop(settings.secrets, {}, {})
    assert choice.keep_given(RUNPOD) == ["RUNPOD_API_KEY"] and choice.keep_given(RUNPOD) == []
    path = settings.secrets / "pod_stop.json"
    assert path.stat().st_mode & 0o777 == 0o600 and KEY in path.read_text()
    choice.save("runpod", pod="abc123xyz")
    assert choice.choice().key == "environment" and KEY not in str(choice.choice())
    choice.save("runpod", key="another-key")
    assert choice.keep_given(RUNPOD) == [] and choice.choice().key == "saved", "what a person saved goes before"
    choice.forget_key()
    assert (choice.choice().key, choice.choice().ready) == ("environment", "")
    choice.save("vast")
    assert "the pod's ID" in choice.choice().ready and "an API key are missing" in choice.choice().ready
    for wrong in ({"pod": "../../etc"}, {"key": "a b"}, {"key": "short"}):
        with pytest.raises(PilotError) as refused:
            choice.save("runpod", **wrong)
        assert wrong.get("key", "nothing") not in refused.value.message


def test_a_command_runs_without_a_shell_and_without_secrets(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps([sys.argv[2:], dict(os.environ)]))"
    environment = {"PATH": os.environ["PATH"], "PILOT_SECRETS": "/x", **RUNPOD}
    choice = PodStop(settings.secrets, environment)
    python = str(Path(sys.executable).resolve())
    choice.save("command", command=[python, "-c", code, str(out), "$HOME; rm -rf *", "two words"])
    assert choice.act().startswith("the command ended well")
    text = out.read_text()
    assert '["$HOME; rm -rf *", "two words"]' in text and '"RUNPOD_POD_ID"' in text
    assert KEY not in text and "PILOT_SECRETS" not in text
    choice.save("command", command=[python, "-c", f"print('token={KEY}'); raise SystemExit(3)"])
    with pytest.raises(NotStopped, match="exit status 3") as failed:
        choice.act()
    assert KEY not in failed.value.message


def test_a_command_that_others_could_rewrite_is_refused_also_later(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "stop.sh"
    script.write_text("#!/bin/sh\necho stopped\n")
    script.chmod(0o755)
    choice = PodStop(settings.secrets, {})
    for words in ([], ["stop.sh"], ["/no/such/program"], [str(tmp_path)], ["/bin/echo", ""], ["/bin/echo", "a\nb"]):
        with pytest.raises(PilotError):
            choice.save("command", command=words)
    choice.save("command", command=[str(script)])
    assert choice.act() == "the command ended well: stopped"
    for place in (script, tmp_path):
        mode = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(NotStopped, match="can be changed by others"):
            choice.act()
        with pytest.raises(PilotError, match="can be changed by others"):
            choice.save("command", command=["/bin/sh", str(script)])
        place.chmod(mode)
    assert choice.act() == "the command ended well: stopped"


# --- what goes on -----------------------------------------------------------------------------------------------------


class Machine:
    """Readings to choose: load of the GPU, bytes over the network; and a folder of terminals."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.load: float | None = 0.0
        self.bytes, self.now = 0, 0.0
        self.terminals = folder / "pts"
        self.terminals.mkdir()
        self.settings = settings
        self.signs = LifeSigns(
            settings.workspace, settings.secrets, RunJobs(settings.workspace), terminals=self.terminals,
            gpus=lambda: [self.gpu()], received=lambda: self.bytes, steady=lambda: self.now,
        )  # fmt: skip

    def gpu(self) -> Gpu:
        about = {"memory_used": 0, "memory_total": 1, "temperature": None, "power": None, "power_limit": None}
        return Gpu(uuid="GPU-1", name="L4", load=self.load, **about)

    def look(self) -> tuple[list[str], list[str]]:
        self.now += 3
        life = self.signs.look()
        return list(life.work), list(life.people)


@pytest.fixture
def machine(settings: Settings, tmp_path: Path) -> Machine:
    return Machine(settings, tmp_path)


def test_runs_and_jobs_keep_a_pod_on_and_what_is_paused_or_over_does_not(machine: Machine) -> None:
    place = machine.settings.workspace
    made.finished(place, "over", 20)
    assert machine.look() == ([], [])
    made.new(place, "next", 20).queue()
    running = made.new(place, "now", 20)
    running.begin_attempt("cpu")
    JobDir.create(place, "download", {"url": "https://example.org/x.safetensors"})
    work, people = machine.look()
    assert "run now is at work" in work and "run next waits" in work and any("job download" in one for one in work)
    assert len(work) == 3 and people == []
    running.finish("done", "", ExitCode.DONE)
    Queue(place).ask("pause", "next")
    Queue(place).apply()
    assert [one for one in machine.look()[0] if one.startswith("run")] == []


def test_a_gpu_that_computes_and_a_transfer_keep_a_pod_on(machine: Machine) -> None:
    machine.load = 0.4
    assert machine.look()[0] == ["GPU 0 computes (40%)"]
    machine.load = None  # a partitioned GPU does not tell
    machine.bytes += int(TRAFFIC * 3 * 1.5)
    assert machine.look()[0] == [f"a transfer of {TRAFFIC * 1.5 / 1e6:.1f} MB/s"]
    machine.bytes += int(TRAFFIC * 3 * 0.5)
    assert machine.look() == ([], [])


def test_who_uses_the_panel_or_a_shell_is_seen_and_an_old_trace_is_none(machine: Machine) -> None:
    secrets, terminal = machine.settings.secrets, machine.terminals / "0"
    terminal.touch()
    assert machine.look() == ([], [])
    mark_seen(secrets)
    assert machine.look()[1] == ["somebody uses the panel"] and machine.look()[1] == []
    mark_seen(secrets, ago=3600)
    assert machine.look()[1] == []
    os.utime(terminal, (time.time() + 5, 0))
    assert machine.look()[1] == ["somebody types in a shell"] and machine.look()[1] == []


def test_the_lookout_stops_the_pod_when_the_run_that_was_marked_is_done(settings: Settings, cloud: Provider) -> None:
    lines: list[str] = []
    keep(settings.workspace, Preferences())
    choice = PodStop(settings.secrets, RUNPOD, cloud.hosts)
    choice.save("runpod")
    lookout = Lookout(settings, lines.append, every=0.05, settle=0.1, times=Times(countdown=0.5), pod=choice)
    lookout.life = LifeSigns(settings.workspace, settings.secrets, RunJobs(settings.workspace), received=lambda: 0)
    lookout.look()
    lookout.start()
    try:
        made.finished(settings.workspace, "plain", 20)
        time.sleep(0.6)
        assert cloud.asked == []
        run = made.new(settings.workspace, "last", 20)
        write_json(run.path / "meta.json", {STOPS_POD: True})
        run.begin_attempt("cpu")
        run.finish("done", "", ExitCode.DONE)
        end = time.monotonic() + 20
        while not cloud.stopped:
            assert time.monotonic() < end, lines
            time.sleep(0.05)
    finally:
        lookout.stop()
    assert cloud.stopped == ["abc123xyz"]
    assert any("the pod is stopped in" in line and "run last is done" in line for line in lines)
