"""Stopping: whose wish it was decides the exit code, every look is cheap, and a second Ctrl-C leaves at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainpilot.errors import ExitCode, PilotError
from trainpilot.runs.stop import StopFlag, StopRequested, stop_grace


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, ExitCode.STOPPED, "person"),
        (signal.SIGTERM, ExitCode.PREEMPTED, "SIGTERM"),
        (signal.SIGHUP, ExitCode.PREEMPTED, "SIGHUP"),
    ],
)
def test_a_signal_becomes_its_exit_code_at_the_next_check(number, code, word):
    # What runs the tests may have been started by nohup, which ignores SIGHUP for all below it.
    inherited = signal.signal(number, signal.default_int_handler)
    try:
        with StopFlag() as stop:
            stop.check()
            os.kill(os.getpid(), number)
            with pytest.raises(StopRequested, match=word) as asked:
                stop.check()
            assert asked.value.kind == asked.value.exit_code == code
            with pytest.raises(StopRequested):
                stop.check()  # it stays, so that nobody can swallow it
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, inherited)


def test_a_persons_wish_wins_over_a_pre_emption_and_the_first_reason_counts_otherwise():
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked.kind == ExitCode.STOPPED
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked.kind == ExitCode.STOPPED


CHILD = """
import os, signal, time
from trainpilot.runs.stop import StopFlag
stop = StopFlag()
stop.last_words = lambda asked: print("last words:", asked.reason, int(asked.kind), flush=True)
with stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""


def test_a_second_interrupt_leaves_at_once_with_last_words():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert "Again to leave at once" in (child.stderr.readline() + child.stderr.readline())
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 4 and "last words: stopped by a person at once (second SIGINT) 4" in out


def test_nohup_keeps_ignoring_a_closed_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.poll()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Asked:
    def __init__(self, answer=False):
        self.answer, self.looks = answer, 0

    def take(self, kind):
        assert kind == "stop"
        self.looks += 1
        return self.answer


def test_a_request_stops_and_the_disk_is_looked_at_at_most_20_times_a_second():
    requests, beats = Asked(), []
    stop = StopFlag(requests, beat=lambda: beats.append(1))
    begun = time.monotonic()
    while time.monotonic() - begun < 0.3:
        stop.check()
    assert 1 <= requests.looks <= 7 and len(beats) == requests.looks  # 0.3 s at 20 a second, and the first
    requests.answer = True
    time.sleep(0.06)
    with pytest.raises(StopRequested, match="requests/stop") as asked:
        stop.check()
    assert asked.value.kind == ExitCode.STOPPED


def test_only_the_main_thread_renews_the_heartbeat():
    # Otherwise a reading thread that goes on would hide a main thread that hangs.
    beats = []
    stop = StopFlag(Asked(), beat=lambda: beats.append(1))
    thread = threading.Thread(target=stop.check)
    thread.start()
    thread.join()
    assert beats == []


def test_a_look_costs_next_to_nothing():
    stop = StopFlag(Asked())
    begun = time.process_time()
    for _ in range(10_000):
        stop.poll()
    assert time.process_time() - begun < 0.5  # 50 us each, of the millisecond of host time that a step may take


@pytest.mark.parametrize(("given", "seconds"), [("", 10.0), ("7.5", 7.5), ("10s", 10.0), (" 3 ", 3.0)])
def test_the_grace_is_read(given, seconds):
    assert stop_grace({"PILOT_STOP_GRACE": given}) == seconds


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan", "inf", "10m"])
def test_a_grace_that_is_none_is_refused(given):
    with pytest.raises(PilotError, match="PILOT_STOP_GRACE"):
        stop_grace({"PILOT_STOP_GRACE": given})
