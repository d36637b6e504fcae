#!/usr/bin/env bash
# The last step of the image: our code on the environment's path, compiled, and the shells' files in their places.
# Used by the Dockerfile.
set -euo pipefail
code=/opt/pilot
python=/opt/venvs/core/bin/python

echo "$code" >"$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pilot.pth"
rm -rf "$code/scripts/container" # what only builds and tests
"$python" -m compileall -q "$code/trainpilot" "$code/controlpilot"
chmod -R a+rX,go-w "$code" # as it was checked out, whatever the umask was
chmod +x "$code"/scripts/*.sh "$code"/scripts/shell/*.sh "$code"/scripts/shell/bin/*
"$python" "$code/scripts/shell/completions.py" >"$code/scripts/shell/completions.bash"
echo '. /opt/pilot/scripts/shell/bashrc' >>/etc/bash.bashrc
cp "$code/scripts/shell/profile" /etc/profile.d/pilot.sh
# A locked password would refuse keys as well; "*" only refuses passwords.
usermod --password '*' pilot
usermod --password '*' root
mkdir -p /workspace
