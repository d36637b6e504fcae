#!/usr/bin/env bash
# Runs a command as the user pilot, whoever calls: in a shell that was started as root nothing of the trainer may make
# files that the services cannot change. Used by the commands in bin/ and by sshd.
set -euo pipefail
umask 002
unset PILOT_PASSWORD # the shell's environment is the container's
if [ "$(id -u)" = 0 ]; then
    export HOME=/home/pilot USER=pilot LOGNAME=pilot
    exec setpriv --reuid=pilot --regid=pilot --init-groups --no-new-privs "$@"
fi
exec "$@"
