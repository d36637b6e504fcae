#!/usr/bin/env bash
# Kohya SS is one of the pod's services: this starts it and says where it opens.
set -euo pipefail
if [ $# -gt 0 ]; then
    echo "gui.sh: $* is not needed here: the service sets address and port itself, behind the panel's login" >&2
fi
controlpilot services start kohya
echo "Kohya SS opens from the Services tab of the panel, or at port 7881 of the pod's address when you are logged in."
