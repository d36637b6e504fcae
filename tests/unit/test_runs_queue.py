"""The queue: order and pauses come from requests, waiting comes from the runs themselves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.cli import main
from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError
from trainpilot.runs.job import Job
from trainpilot.runs.queue import Order, Queue
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return Workspace(tmp_path / "workspace")


def add(workspace, *names):
    for name in names:
        RunDir.create(workspace, Resolved(RunConfig(run={"name": name}), {})).queue()


def test_the_oldest_is_first_until_somebody_moves_one(workspace):
    add(workspace, "c", "b", "a")
    queue = Queue(workspace)
    assert queue.now()[1] == ["c", "b", "a"]
    queue.ask("move", "a", 1)
    queue.ask("move", "c", 99)
    assert queue.now()[1] == ["a", "b", "c"]  # seen before any worker has written it
    assert not queue.path.exists()
    queue.apply()
    assert json.loads(queue.path.read_text())["order"] == ["a", "b", "c"]
    assert list(queue.requests.iterdir()) == []
    add(workspace, "d")
    assert queue.now()[1] == ["a", "b", "c", "d"]


def test_pauses_of_the_queue_and_of_one_run(workspace):
    add(workspace, "a", "b")
    queue = Queue(workspace)
    queue.ask("pause")
    queue.ask("pause", "b")
    order = queue.apply()
    assert order.paused and order.paused_runs == {"b"}
    queue.ask("resume")
    queue.ask("resume", "b")
    assert queue.apply() == Order(order=())


def test_removed_runs_leave_order_and_pauses_but_not_the_disk(workspace):
    add(workspace, "a", "b")
    queue = Queue(workspace)
    queue.ask("move", "b", 1)
    queue.ask("pause", "b")
    queue.apply()
    queue.remove("b")
    assert queue.apply() == Order(order=("a",))
    job = Job.read(workspace.outputs / "b")
    assert (job.status, job.exit_code) == ("stopped", 4)
    with pytest.raises(PilotError, match="queue stop b"):
        queue.remove("b")


def test_requests_that_make_no_sense_change_nothing(workspace):
    add(workspace, "a")
    queue = Queue(workspace)
    for do, run, to in [("explode", "a", 1), ("move", "nobody", 1), ("move", "a", 0), ("move", "a", None)]:
        with pytest.raises(PilotError):
            queue.ask(do, run, to)
    queue.requests.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(["", "[1]", '{"do": "move", "run": ["a"]}', '{"do": "pause", "run": 5}', "\x00"]):
        (queue.requests / f"{number}.json").write_text(text)
    assert queue.apply() == Order()
    assert list(queue.requests.iterdir()) == []


NAMES = st.sampled_from("abcde")


@given(st.lists(st.tuples(NAMES, st.integers(1, 7)), max_size=10), st.sets(NAMES))
def test_no_order_of_moves_loses_or_doubles_a_run(moves, left):
    waiting = list("abcde")
    order = Order()
    for run, to in moves:
        order = order.after({"do": "move", "run": run, "to": to}, waiting)
        shown = order.sorted(waiting)
        assert sorted(shown) == waiting
        assert shown.index(run) == min(to, len(waiting)) - 1
    assert sorted(order.sorted([name for name in waiting if name in left])) == sorted(left)


def test_the_verb_answers_in_text_and_in_json(workspace, capsys):
    add(workspace, "a", "b")
    there = ["--workspace", str(workspace.root)]
    assert main(["queue", "move", "b", "1", *there]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["1. b", "2. a"]
    assert main(["queue", "pause", *there, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["paused"] and [row["run"] for row in shown["queued"]] == ["b", "a"] and not shown["worker"]
    assert main(["queue", "remove", "a", *there]) == 0
    assert "no worker works here" in capsys.readouterr().out
    assert main(["queue", "stop", "b", *there, "--json"]) == 2
    assert "queue remove b" in json.loads(capsys.readouterr().out)["error"]["remedy"]
    assert main(["queue", "move", "zzz", "1", *there]) == 2
    assert "does not wait" in capsys.readouterr().err
