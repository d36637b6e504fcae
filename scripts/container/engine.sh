#!/usr/bin/env bash
# Makes sure that an engine for containers answers: the one that runs, else Debian's, installed and started here.
# Prints one line that says which. Used by scripts/test.sh --all and tests/container.
#
# Exit 0: it answers. Exit 3: none can be had here, with the reason (the container tests are then skipped).
set -euo pipefail

docker=/usr/bin/docker # another client earlier on PATH may lack what a build needs
log=/tmp/pilot-dockerd.log

cannot() {
    echo "no engine for containers: $1"
    exit 3
}

answers() { timeout 20 "$docker" info >/dev/null 2>&1; }

if [ ! -x "$docker" ] || ! command -v dockerd >/dev/null || ! command -v debootstrap >/dev/null ||
    ! command -v docker-compose >/dev/null || ! command -v bindfs >/dev/null; then
    [ "$(id -u)" = 0 ] || cannot "it is not installed, and only root can install it"
    command -v apt-get >/dev/null || cannot "it is not installed, and this is no Debian"
    export DEBIAN_FRONTEND=noninteractive
    {
        timeout 120 apt-get update -qq &&
            timeout 300 apt-get install -y -qq --no-install-recommends docker.io iptables debootstrap \
                docker-compose bindfs # one of the tests has a volume that ignores owners
    } >"$log" 2>&1 || cannot "apt-get cannot install it: $(tail -n 1 "$log")"
fi

if ! answers; then
    [ "$(id -u)" = 0 ] || cannot "it is not running, and only root can start it"
    # A session of its own: it outlives this script and the signals of its terminal.
    setsid dockerd >>"$log" 2>&1 </dev/null &
    for _ in $(seq 60); do
        answers && break
        sleep 0.5
    done
    answers || cannot "dockerd does not answer within 30 s: $(tail -n 1 "$log")"
fi
echo "engine: Docker $("$docker" version --format '{{.Server.Version}}')"
