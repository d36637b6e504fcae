"""Volumes as they come: root's, somebody else's, read-only, full. The pod comes up on each and says so."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from pods import TINY, Pod

STRANGER = 4711


def found(pod: Pod) -> dict[str, str]:
    """What boot found, by its word: the level and the text."""
    lines = json.loads(pod.run("cat", "/run/pilot/boot.json").stdout)["lines"]
    return {line["what"]: f"{line['level']}: {line['text']}" for line in lines}


def test_a_volume_of_roots_is_shared_without_being_given_away(image: str, volume: Path) -> None:
    mine = volume / "datasets" / "images" / "3_mine"
    mine.mkdir(parents=True)
    (mine / "note.txt").write_text("here before")
    with Pod(image, volume=str(volume)) as pod:
        pod.healthy()
        assert volume.stat().st_uid == 0
        assert (mine / "note.txt").stat().st_uid == 0 and mine.stat().st_uid == 0
        secrets = (volume / "config" / "panel").stat()
        assert stat.S_IMODE(secrets.st_mode) == 0o700 and secrets.st_uid == 900
        assert pod.run("id", "-u", "pilot").stdout.strip() == "1000"
        pod.run("sh", "-c", "echo x > /workspace/outputs/by_pilot", user="pilot")
        # The panel's user may change what pilot made, and the other way round.
        pod.run("sh", "-c", "umask 002; mkdir /workspace/jobs/by_panel", user="panel")
        pod.run("sh", "-c", "echo x > /workspace/jobs/by_panel/by_pilot", user="pilot")


def test_pilot_becomes_the_owner_of_a_strangers_volume(image: str, volume: Path) -> None:
    mine = volume / "mine.txt"
    mine.write_text("here before")
    os.chown(volume, STRANGER, STRANGER)
    os.chown(mine, STRANGER, STRANGER)
    with Pod(image, volume=str(volume)) as pod:
        pod.healthy()
        assert pod.run("id", "-u", "pilot").stdout.strip() == str(STRANGER)
        pod.run("trainpilot", *TINY, "--name", "short", "--set", "training.steps=2", timeout=600)
        result = volume / "outputs" / "short" / "short.safetensors"
        assert result.stat().st_uid == STRANGER
    assert volume.stat().st_uid == STRANGER and mine.stat().st_uid == STRANGER


def test_a_read_only_volume_still_gets_a_panel_that_says_so(image: str, volume: Path) -> None:
    with Pod(image, volume=str(volume), options=":ro") as pod:
        pod.healthy()
        assert "read-only" in found(pod)["volume"]
        assert found(pod)["volume"].startswith("problem")
        assert "in the container" in found(pod)["secrets"]
        page = pod.login().get(pod.origin() + "/", timeout=10)
        assert page.status_code == 200


def test_a_full_volume_still_gets_a_panel_that_says_so(image: str) -> None:
    with Pod(image, ["--mount", "type=tmpfs,destination=/workspace,tmpfs-size=65536"]) as pod:
        pod.healthy()
        assert pod.login().get(pod.origin() + "/", timeout=10).status_code == 200
        told = found(pod)
        assert told["disk"].startswith("problem") and "is full" in told["secrets"]


def test_a_volume_that_fills_up_while_it_runs_still_lets_people_in(image: str) -> None:
    with Pod(image, ["--mount", f"type=tmpfs,destination=/workspace,tmpfs-size={64 * 2**20}"]) as pod:
        pod.healthy()
        assert "secrets" not in found(pod)  # they live on the volume
        full = pod.run("sh", "-c", "cat /dev/zero > /workspace/filler", check=False)
        assert "No space left" in full.stderr
        session = pod.login()
        assert session.get(pod.origin() + "/", timeout=10).status_code == 200
        assert session.get(pod.origin() + "/runs", timeout=10).status_code == 200


def test_secrets_leave_a_volume_that_ignores_owners(image: str, tmp_path: Path) -> None:
    """As network volumes do: chown and chmod succeed, and change nothing."""
    behind, place = tmp_path / "behind", tmp_path / "volume"
    behind.mkdir()
    place.mkdir()
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("this machine has no FUSE to make such a volume with")
    ignoring = ["--chown-ignore", "--chgrp-ignore", "--chmod-ignore", "--perms=a+rwX", "-o", "allow_other"]
    command = ["bindfs", "--force-user=1000", "--force-group=1000", *ignoring, str(behind), str(place)]
    subprocess.run(command, check=True)
    try:
        with Pod(image, volume=str(place)) as pod:
            pod.healthy()
            told = found(pod)
            assert "are ignored" in told["owners"] and "in the container" in told["secrets"]
            assert not (place / "config" / "panel" / "password.json").exists()
            pod.login()
            refused = pod.run("cat", "/var/lib/pilot/secrets/password.json", user="pilot", check=False)
            assert refused.returncode != 0
    finally:
        subprocess.run(["umount", str(place)], check=True)
