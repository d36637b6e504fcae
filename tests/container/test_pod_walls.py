"""Walls between the users, tried as pilot, and who listens where."""

from __future__ import annotations

import re

import pytest
from pods import Pod, until

PUBLIC = set(range(7878, 7886))


def listeners(pod: Pod) -> set[tuple[str, int]]:
    """Address and port of every TCP listener, IPv4 and IPv6."""
    text = pod.run("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6").stdout
    found = re.findall(r"^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) [0-9A-F:]+ 0A", text, re.MULTILINE)
    return {(address, int(port, 16)) for address, port in found}


def test_only_the_ports_of_the_contract_listen_outside(pod: Pod) -> None:
    until(60, "services", lambda: pod.states().get("jupyterlab") == "RUNNING", every=1)
    loopback = {"0100007F", "00000000000000000000000001000000"}
    outside = {port for address, port in listeners(pod) if address not in loopback}
    assert outside == PUBLIC


@pytest.mark.parametrize(
    "command",
    [
        "supervisorctl -s unix:///run/pilot/supervisor.sock status",
        "curl -s --max-time 3 --unix-socket /run/pilot/supervisor.sock http://localhost/RPC2",
        "curl -s --max-time 3 --unix-socket /run/pilot/panel.sock http://localhost/healthz",
        "ls /workspace/config/panel",
        "cat /workspace/config/panel/password.json",
        "mv /workspace/config/panel /workspace/config/other",
        "mv /workspace/config /workspace/other",
        "rm -rf /workspace/config/panel && test ! -e /workspace/config/panel",
        "echo x >> /run/pilot/nginx.conf",
        "echo x > /run/pilot/supervisor.d/more.conf",
        "echo x > /opt/pilot/controlpilot/services/more.conf",
        "ln -s /etc/shadow /var/log/pilot/x.log",
        "cat /proc/1/environ",
        "kill -9 $(cat /run/pilot/supervisord.pid)",
        "setpriv --reuid=0 id",
    ],
)
def test_pilot_is_refused(pod: Pod, command: str) -> None:
    """The same command works for root, or would: what refuses is the user, not a missing file."""
    done = pod.run("sh", "-c", command, user="pilot", check=False)
    assert done.returncode != 0, done.stdout
    assert "hash" not in done.stdout


def test_supervisord_answers_the_panels_user(pod: Pod) -> None:
    done = pod.run("supervisorctl", "-s", "unix:///run/pilot/supervisor.sock", "status", user="panel", check=False)
    assert "RUNNING" in done.stdout


def test_a_notebook_gains_nothing_by_writing_services(pod: Pod) -> None:
    """Whatever a file in config/services says, it runs as pilot or not at all."""
    attacks = {
        "root": 'command = ["id"]\nuser = "root"\n',
        "x]\nuser=root\n[program:y": 'command = ["id"]\n',
        "percent": 'command = ["%(ENV_HOME)s"]\nautostart = true\n',
        "who": 'command = ["sh", "-c", "id -u > /workspace/outputs/who; sleep 60"]\nautostart = true\n',
    }
    for name, text in attacks.items():
        script = "import sys; open('/workspace/config/services/' + sys.argv[1] + '.toml', 'w').write(sys.argv[2])"
        pod.run("/opt/venvs/core/bin/python", "-c", script, name, text, user="pilot", check=False)
    pod.stop()
    pod.again().healthy()
    until(20, "the service", lambda: pod.run("cat", "/workspace/outputs/who", check=False).stdout.strip())
    assert pod.run("cat", "/workspace/outputs/who").stdout.strip() == pod.run("id", "-u", "pilot").stdout.strip()
    compiled = pod.run("cat", "/run/pilot/supervisor.d/pilot.conf").stdout
    assert set(re.findall(r"^user\s*=\s*(\S+)", compiled, re.MULTILINE)) == {"pilot"}
    assert "own-root" not in pod.states()
    pod.run("sh", "-c", "rm -f /workspace/config/services/*.toml")


def test_no_process_of_a_service_is_roots(pod: Pod) -> None:
    rows = pod.run("ps", "-eo", "user:20,args", "--no-headers").stdout.splitlines()
    roots = [row for row in rows if row.startswith("root ")]
    allowed = ("tini", "controlpilot.boot", "supervisord", "ps -eo", "entrypoint")
    assert all(any(word in row for word in allowed) for row in roots), roots


def test_a_login_over_ssh_is_off_without_a_key(pod: Pod) -> None:
    assert 22 not in {port for _, port in listeners(pod)}
