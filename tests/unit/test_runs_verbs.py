"""The verbs of a run's life, up to the point where the engine begins: what they make, refuse and print."""

import json
import sys

import pytest
from light_bases import sd_folder
from PIL import Image

from trainpilot.cli import main
from trainpilot.runs.events import history
from trainpilot.runs.job import Job
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

GOOD = ("--dataset", "3_zorp", "--base-model", "tiny", "--set", "training.steps=40")


@pytest.fixture
def place(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "ws")
    sd_folder(workspace.models / "tiny")
    folder = workspace.datasets / "images" / "3_zorp"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    monkeypatch.setenv("PILOT_WORKSPACE", str(workspace.root))
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return workspace


def test_train_prints_the_plan_and_makes_the_folder(place, capsys):
    assert main(["train", *GOOD, "--name", "zorp", "--prepare"]) == 0
    out = capsys.readouterr().out
    assert "40" in out and f"run folder: {place.outputs / 'zorp'}" in out
    assert main(["train", *GOOD, "--name", "zorp", "--prepare", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "zorp-2", "folder": str(place.outputs / "zorp-2")}
    run = RunDir.open(place.outputs / "zorp")
    assert run.job is None and run.config.training.steps == 40
    plan = history(run.path / "events.jsonl")[0]
    assert (plan["kind"], plan["steps"], plan["attempt"]) == ("plan", 40, 0)


def test_bad_input_makes_no_folder(place, capsys):
    assert main(["train", "--dataset", "nowhere", "--base-model", "tiny"]) == 2
    assert main(["train", *GOOD, "--set", "network.rank=-1"]) == 2
    assert main(["queue", "add", *GOOD, "--set", "network.rnk=4", "--json"]) == 2
    assert "network.rank" in json.loads(capsys.readouterr().out)["error"]["remedy"]
    assert not place.outputs.exists()


def test_one_of_several_processes_does_not_make_a_folder(place, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", *GOOD]) == 2
    assert "accelerate launch" in capsys.readouterr().err and not place.outputs.exists()


def test_a_queued_run_can_be_taken_out_and_put_back_with_other_settings(place, capsys):
    assert main(["queue", "add", *GOOD, "--name", "zorp"]) == 0
    assert "1. zorp" in capsys.readouterr().out
    assert main(["queue", "remove", "zorp"]) == 0
    assert main(["run", str(place.outputs / "zorp")]) == 4  # a person took it out: only `resume` brings it back
    assert main(["resume", "zorp", "--set", "training.steps=60", "--queue", "--json"]) == 0
    run = RunDir.open(place.outputs / "zorp")
    assert run.config.training.steps == 60 and run.config.run.name == "zorp"
    assert run.resolved.sources["training.steps"] == "--set" and (run.path / "run.2.toml").is_file()
    assert Job.read(run.path).status == "queued"
    assert main(["resume", "zorp", "--set", "training.stepps=60", "--queue"]) == 2
    assert not (run.path / "run.3.toml").exists() and Job.read(run.path).status == "queued"


def test_a_missing_engine_is_said_with_its_remedy_and_recorded(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trainpilot.engine.trainer", None)  # as where torch is not installed
    assert main(["train", *GOOD, "--name", "zorp"]) == 2
    assert "bash scripts/setup.sh" in capsys.readouterr().err
    job = Job.read(place.outputs / "zorp")
    assert (job.status, job.exit_code, job.live) == ("failed", 2, False)
    end = history(place.outputs / "zorp" / "events.jsonl")[-1]
    assert (end["kind"], end["status"]) == ("end", "failed")


def test_a_run_that_is_not_there(place, capsys):
    assert main(["run", str(place.outputs / "zorp")]) == 2
    assert main(["resume", "zorp"]) == 2
    assert main(["worker", "--heartbeat", "0"]) == 2


@pytest.mark.parametrize("verb", ["train", "run", "resume", "queue", "worker"])
def test_every_verb_has_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0 and f"example: trainpilot {verb}" in capsys.readouterr().out
