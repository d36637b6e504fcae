"""The parts of boot that need no container: what passes to services, drivers, keys, file systems, stopping trainers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlpilot.boot import keeper, machine, sshd, volume
from controlpilot.boot.compiled import passed
from trainpilot.runs.locks import FolderLock

SECRETS = (
    "PILOT_PASSWORD", "PILOT_PASSWORD_FILE", "HF_TOKEN", "CIVITAI_TOKEN", "RUNPOD_API_KEY", "PUBLIC_KEY",
    "PILOT_SSH_KEYS", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "PILOT_NOTIFY_TOKEN", "LD_PRELOAD",
)  # fmt: skip


def test_no_secret_passes_to_services() -> None:
    kept = {"PILOT_STOP_GRACE": "8", "NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "0", "TZ": "UTC",
            "TOKENIZERS_PARALLELISM": "false", "VAST_TCP_PORT_7878": "40000", "RUNPOD_POD_ID": "abc"}  # fmt: skip
    assert passed(kept | dict.fromkeys(SECRETS, "x")) == kept


@pytest.mark.parametrize(
    ("given", "torch", "bad", "says"),
    [
        ("580.65.06", "2.13.0+cu130", False, "enough"),
        ("570.124.06", "2.13.0+cu130", True, "core-cu128"),
        ("535.104", "2.13.0+cu130", True, "update the machine's driver"),
        ("570.124.06", "2.10.0+cu128", False, "enough"),
        ("580.65.06", "2.13.0+cpu", True, "built for the CPU"),
    ],
)
def test_an_old_driver_names_the_variant_to_take(given: str, torch: str, bad: bool, says: str) -> None:
    problem, text = machine.driver(given, torch)
    assert problem is bad and says in text


def test_the_shell_completes_both_programs() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "scripts" / "shell" / "completions.py")]
    environment = os.environ | {"PYTHONPATH": str(root)}  # in the image it is on the path of the environment
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    asked = (
        f'{text}\n_trainpilot_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _$1; '
        'echo "${COMPREPLY[*]}"; }\n'
        "_trainpilot_words trainpilot tra; _trainpilot_words controlpilot ser; "
        "_trainpilot_words trainpilot train --base"
    )
    said = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].split() == ["train"] and set(said[1].split()) == {"serve", "services"}
    assert "--base-model" in said[2].split()


def test_only_public_keys_are_keys() -> None:
    good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGu me@home"
    command = 'command="id" ' + good
    found, bad = sshd.keys({"PUBLIC_KEY": f"{good}\n# a comment\n", "PILOT_SSH_KEYS": f"{command}\nnonsense"})
    assert found == [good] and bad == 2


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:20 / / rw - overlay overlay rw\n"
        "30 22 0:45 / /workspace rw - nfs4 server:/x rw\n"
        "31 22 0:46 / /workspaces rw - ext4 /dev/x rw\n"
    )
    assert volume.kind_of(Path("/workspace"), table) == "nfs4"
    assert volume.kind_of(Path("/workspaces/a"), table) == "ext4"
    assert volume.Volume(kind="nfs4").network and not volume.Volume(kind="ext4").network


def test_a_trial_that_hangs_does_not_hold_up_the_boot() -> None:
    began = time.monotonic()
    assert volume.within(0.3, lambda: time.sleep(60) or "") is None
    assert time.monotonic() - began < 5
    assert volume.within(5, lambda: "x" * 200_000) == "x" * 200_000


def test_a_good_folder_can_do_everything(tmp_path: Path) -> None:
    found = volume.look(tmp_path)
    assert found.writable and found.rename and found.symlink and found.flock and found.free > 0
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import signal, sys, time
from pathlib import Path
from trainpilot.runs.locks import FolderLock
lock = FolderLock(Path(sys.argv[1])); assert lock.acquire()
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("ready", flush=True)
while not asked: time.sleep(0.02)
time.sleep(0.5); Path(sys.argv[1] + ".saved").write_text("x")
"""
KEEP = """
import sys
from controlpilot.boot import keeper
sys.exit(keeper.keep([sys.executable, "-c", sys.argv[1]], dict(__import__("os").environ)))
"""


@pytest.mark.parametrize("way", ["stopped", "supervisord dies"])
def test_every_trainer_hears_of_the_end_and_is_waited_for(tmp_path: Path, way: str) -> None:
    """A trainer that is nobody's child; a worker's lock, which is not a trainer's, is left to supervisord."""
    environment = os.environ | {"PILOT_LOCKS": str(tmp_path / "locks"), "PILOT_STOP_GRACE": "10"}
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / "run.lock"
    trainer = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"ready\n"
    program = "import time; print('up', flush=True); time.sleep(60)"
    if way != "stopped":
        program = "import time; print('up', flush=True); time.sleep(0.5); raise SystemExit(7)"
    pod = subprocess.Popen([sys.executable, "-c", KEEP, program], env=environment, stdout=subprocess.PIPE)
    assert pod.stdout is not None and pod.stdout.readline() == b"up\n"
    if way == "stopped":
        pod.terminate()
    assert pod.wait(15) == (0 if way == "stopped" else 7)
    assert lock.with_name("run.lock.saved").exists()
    trainer.wait(5)


def test_a_lock_of_the_worker_is_not_a_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path))
    lock = FolderLock(tmp_path / "worker.lock")
    assert lock.acquire()
    try:
        assert keeper.trainers() == []
    finally:
        lock.release()
