#!/usr/bin/env bash
# What every login over ssh gets, root's too: a shell, a command (rsync) or file transfer as the user pilot, whose files
# the group may change. Used by sshd alone (ForceCommand).
set -euo pipefail
[ ! -r /run/pilot/shell.env ] || . /run/pilot/shell.env
export PATH=/opt/pilot/scripts/shell/bin:/opt/venvs/core/bin:/usr/local/bin:/usr/bin:/bin SHELL=/bin/bash
cd /workspace 2>/dev/null || cd /
as_pilot=/opt/pilot/scripts/shell/run_as_pilot.sh
case ${SSH_ORIGINAL_COMMAND:-} in
"") exec "$as_pilot" /bin/bash -i ;;
internal-sftp* | */sftp-server*) exec "$as_pilot" /usr/lib/openssh/sftp-server -u 002 ;;
*) exec "$as_pilot" /bin/bash -c "$SSH_ORIGINAL_COMMAND" ;;
esac
