#!/usr/bin/env bash
# What the container starts: boot, under an init that collects what dies. Used by the Dockerfile, and by providers that
# start it themselves: then it brings its own init, so that it works as any process number.
set -euo pipefail

parent=$(cat "/proc/$PPID/comm" 2>/dev/null || true)
if [ "$parent" != tini ]; then
    exec /usr/bin/tini -s -- "$0" "$@"
fi
if [ $# -gt 0 ]; then
    exec "$@" # docker run IMAGE COMMAND: that command instead of the pod
fi
cd /opt/pilot
exec /opt/venvs/core/bin/python -P -m controlpilot.boot
