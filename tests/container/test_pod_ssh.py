"""Logins by key: root's and pilot's are both a pilot shell in the workspace; files from rsync can be changed by all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pods import Pod, until


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def test_a_key_opens_a_pilot_shell_and_a_password_does_not(image: str, key: Path, tmp_path: Path) -> None:
    public = key.with_suffix(".pub").read_text()
    with Pod(image, ["--env", f"PUBLIC_KEY={public}"]) as pod:
        pod.healthy()
        until(15, "sshd", lambda: pod.states().get("sshd") == "RUNNING")
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        by_key = ["ssh", *options, "-i", str(key), "-o", "BatchMode=yes"]
        for user in ("root", "pilot"):
            said = subprocess.run(
                [*by_key, f"{user}@{pod.ip}", "id -un; pwd; umask; command -v trainpilot"],
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert said.stdout.split()[:3] == ["pilot", "/workspace", "0002"], said.stdout + said.stderr
        # It comes back when it dies.
        pod.run("sh", "-c", "kill -9 $(cat /etc/ssh/pilot/sshd.pid)")
        back = [*by_key, f"pilot@{pod.ip}", "true"]
        until(15, "sshd's return", lambda: subprocess.run(back, capture_output=True, timeout=30).returncode == 0)
        without = ["ssh", *options, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", "/dev/null"]
        assert subprocess.run([*without, f"root@{pod.ip}", "id"], capture_output=True, timeout=30).returncode == 255
        (tmp_path / "picture.txt").write_text("sent")
        target = f"root@{pod.ip}:/workspace/datasets/"
        scp = ["scp", *options, "-i", str(key), str(tmp_path / "picture.txt"), target]
        subprocess.run(scp, check=True, timeout=30)
        assert pod.run("stat", "-c", "%U %G", "/workspace/datasets/picture.txt").stdout.split() == ["pilot", "pilot"]
