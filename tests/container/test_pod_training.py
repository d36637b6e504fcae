"""Training in the pod by hand, stopping it, killing it: nothing is lost, and what was pre-empted goes on by itself."""

from __future__ import annotations

import time
from pathlib import Path

from pods import TINY, Pod, docker, until

ENDLESS = (*TINY, "--set", "training.steps=100000", "--set", "saving.every_steps=20", "--set", "saving.keep=2")
BEGUN = 300.0  # seconds until steps are done, where other tests run beside this one: imports come first
LONGEST_STOP = 10.0  # seconds, as promised; benchmarks/pod.py measures how much less it takes


def train_in_a_shell(pod: Pod, name: str, *more: str) -> None:
    pod.run("trainpilot", *ENDLESS, *more, "--name", name, detach=True)
    until(BEGUN, f"{name} training", lambda: pod.steps(name) > 3, every=0.5)


def test_by_hand(pod: Pod) -> None:
    """A shell as a person gets it: in the workspace, greeted, on the right path, and never root for the trainer."""
    said = pod.run("bash", "-ic", "pwd; type -p trainpilot controlpilot; complete -p trainpilot; umask")
    assert said.stdout.splitlines()[-6:][0] and "LoRA Pilot" in said.stdout
    assert "/workspace" in said.stdout and "complete -o default -F _trainpilot trainpilot" in said.stdout
    done = pod.run("trainpilot", *TINY, "--name", "by_hand", "--set", "training.steps=3", timeout=600)
    assert pod.job("by_hand")["status"] == "done", done.stdout[-2000:]
    owner = pod.run("stat", "-c", "%U", "/workspace/outputs/by_hand/by_hand.safetensors").stdout.strip()
    assert owner == "pilot"
    verified = pod.run(
        "trainpilot",
        "verify",
        "/workspace/outputs/by_hand/by_hand.safetensors",
        "--base",
        "models/pilot-tiny",
        timeout=120,
    )
    assert verified.returncode == 0
    guides = "/workspace/lora_training/output"
    assert "step-00000003" in pod.run("readlink", "-e", f"{guides}/by_hand_checkpoint.safetensors").stdout
    assert pod.run("readlink", "-e", f"{guides}/samples").stdout.strip() == "/workspace/outputs/by_hand/samples"
    repro = pod.run("cat", "/workspace/logs/by_hand_repro.json").stdout
    assert "of-the-tests" in repro
    assert "by_hand" in pod.login().get(pod.origin() + "/runs", timeout=10).text


def test_a_stop_saves_and_the_next_start_goes_on(image: str, volume: Path) -> None:
    """Both with the worker killed before and with a run of a shell; not what a person had stopped."""
    with Pod(image, volume=str(volume)) as pod:
        pod.healthy()
        train_in_a_shell(pod, "stopped_by_me")
        pod.run("touch", "/workspace/outputs/stopped_by_me/requests/stop")
        until(120, "the person's stop", lambda: pod.job("stopped_by_me").get("status") == "stopped")
        assert pod.job("stopped_by_me")["exit_code"] == 4

        train_in_a_shell(pod, "going_on")
        pod.run("sh", "-c", "pkill -KILL -f '[t]rainpilot worker'")
        before = pod.steps("going_on")
        seconds = pod.stop()
        assert seconds < LONGEST_STOP, f"{seconds:.1f} s\n{pod.logs()[-3000:]}"
        assert pod.inspect()["State"]["ExitCode"] == 0
        job = (volume / "outputs/going_on/job.json").read_text()
        assert '"exit_code": 5' in job, job
        saved = sorted((volume / "outputs/going_on/checkpoints").glob("step-*"))
        assert saved and int(saved[-1].name.split("-")[1]) >= before

        pod.again().healthy()
        until(BEGUN, "the run going on", lambda: pod.steps("going_on") > before + 5, every=0.5)
        start = pod.events("going_on", "start")[-1]
        assert start["from_step"] >= before
        assert pod.job("stopped_by_me")["status"] == "stopped"
        # Now it is the worker's: the same stop once more.
        seconds = pod.stop()
        assert seconds < LONGEST_STOP, f"{seconds:.1f} s\n{pod.logs()[-3000:]}"


def test_a_kill_loses_at_most_what_came_after_the_last_checkpoint(image: str, volume: Path) -> None:
    with Pod(image, volume=str(volume)) as pod:
        pod.healthy()
        train_in_a_shell(pod, "killed")
        until(BEGUN, "a checkpoint", lambda: list((volume / "outputs/killed/checkpoints").glob("step-*")), every=0.5)
        time.sleep(0.5)
        docker("kill", pod.name)
        last = max(int(path.name.split("-")[1]) for path in (volume / "outputs/killed/checkpoints").glob("step-*"))
        pod.again().healthy()
        until(BEGUN, "the run going on", lambda: len(pod.events("killed", "start")) > 1, every=0.5)
        assert pod.events("killed", "start")[-1]["from_step"] >= last


def test_a_killed_supervisord_ends_the_container_and_saves(image: str) -> None:
    with Pod(image) as pod:
        pod.healthy()
        train_in_a_shell(pod, "orphaned")
        pod.run("sh", "-c", "kill -9 $(cat /run/pilot/supervisord.pid)")
        until(20, "the container's end", lambda: not pod.running)
        assert pod.inspect()["State"]["ExitCode"] != 0
        pod.again().healthy()
        assert pod.job("orphaned")["exit_code"] == 5 or pod.job("orphaned")["status"] in ("queued", "running")
