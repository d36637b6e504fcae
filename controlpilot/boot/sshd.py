"""Logins over ssh: with keys only, off where none are given. Whoever logs in, as root or as pilot, is pilot.

PUBLIC_KEY is what providers set; PILOT_SSH_KEYS is ours; both hold public keys, one a line.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from controlpilot.boot.report import Report

FOLDER = Path("/etc/ssh/pilot")  # root's all the way up, as sshd asks
KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]+( [^\x00-\x1f]*)?")
CONFIG = """\
# Written at boot: changes here are lost.
Port 22
HostKey {folder}/host_ed25519
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers root pilot
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AllowAgentForwarding no
AllowTcpForwarding no
X11Forwarding no
PermitTunnel no
PermitUserEnvironment no
PermitUserRC no
PrintMotd no
Subsystem sftp internal-sftp
ForceCommand /opt/pilot/scripts/shell/ssh_login.sh
PidFile {folder}/sshd.pid
"""


PROGRAM = """\
; Written at boot: changes here are lost.
[program:sshd]
command=/usr/sbin/sshd -D -e -f {folder}/sshd_config
user=root
autostart=true
autorestart=true
startsecs=1
startretries=5
stopsignal=TERM
stopwaitsecs=3
redirect_stderr=true
stdout_logfile={logs}/sshd.log
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=1
"""


def keys(environ: Mapping[str, str]) -> tuple[list[str], int]:
    """The public keys given, and how many lines are none."""
    lines = [line.strip() for name in ("PUBLIC_KEY", "PILOT_SSH_KEYS") for line in environ.get(name, "").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    good = [line for line in lines if KEY.fullmatch(line)]
    return good, len(lines) - len(good)


def prepare(environ: Mapping[str, str], run: Path, logs: Path, report: Report, folder: Path = FOLDER) -> None:
    """Where keys are given: its files, and the program that supervisord then starts, and starts again if it dies."""
    program = run / "supervisor.d" / "sshd.conf"
    program.unlink(missing_ok=True)  # of a start with other keys
    good, bad = keys(environ)
    if bad:
        report.problem("ssh", f"{bad} lines of PUBLIC_KEY and PILOT_SSH_KEYS are no public keys and are not used")
    if not good:
        report.ok("ssh", "off; PUBLIC_KEY or PILOT_SSH_KEYS with a public key turns it on")
        return
    folder.mkdir(mode=0o755, exist_ok=True)
    (folder / "authorized_keys").write_text("\n".join(good) + "\n")
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(folder=folder))
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host = folder / "host_ed25519"
    try:
        if not host.exists():
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host))
        _call("/usr/sbin/sshd", "-t", "-f", str(config))
    except (OSError, subprocess.SubprocessError) as error:
        report.problem("ssh", f"sshd does not start: {error}")
        return
    program.write_text(PROGRAM.format(folder=folder, logs=logs))
    report.ok("ssh", f"on, {len(good)} key(s); every login is the user pilot")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10, stdin=subprocess.DEVNULL)
