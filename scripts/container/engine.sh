#!/usr/bin/env bash
# Makes sure that an engine for containers answers: the one that runs, else Debian's, installed and started here, with
# what else the tests of the pod call. Prints one line that says which. Used by scripts/test.sh --all, tests/container.
#
#   bash scripts/container/engine.sh        Exit 0: it answers. Exit 3: none can be had here, with the reason.
#   bash scripts/container/engine.sh stop   removes the tests' containers, and ends the engine that was started here
set -euo pipefail

docker=/usr/bin/docker # another client earlier on PATH may lack what a build needs
log=/tmp/pilot-dockerd.log
started=/run/pilot-test-engine.pid # of the engine that this script started

cannot() {
    echo "no engine for containers: $1"
    exit 3
}

answers() { timeout 20 "$docker" info >/dev/null 2>&1; }

stop() {
    local left pid
    if answers; then
        left=$("$docker" ps --all --quiet --filter label=lora-pilot-test)
        # shellcheck disable=SC2086 # one word for each container
        [ -z "$left" ] || "$docker" rm --force --volumes $left >/dev/null
    fi
    pid=$(cat "$started" 2>/dev/null || true)
    rm -f "$started"
    if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        kill "$pid"
        for _ in $(seq 150); do
            [ -e "/proc/$pid" ] || return 0
            sleep 0.2
        done
        echo "the engine that was started here (process $pid) does not end" >&2
        return 1
    fi
}

if [ "${1:-}" = stop ]; then
    stop
    exit
fi

# Whether all that tests/container and tests/services call is here; bindfs: one has a volume that ignores owners.
complete() {
    local name
    [ -x "$docker" ] && [ -e /usr/lib/nginx/modules/ngx_http_js_module.so ] || return 1
    for name in dockerd iptables debootstrap docker-compose bindfs nsenter curl ssh-keygen nginx; do
        command -v "$name" >/dev/null || return 1
    done
}

if ! complete; then
    [ "$(id -u)" = 0 ] || cannot "it is not installed, and only root can install it"
    command -v apt-get >/dev/null || cannot "it is not installed, and this is no Debian"
    export DEBIAN_FRONTEND=noninteractive
    {
        timeout 120 apt-get update -qq &&
            timeout 300 apt-get install -y -qq --no-install-recommends docker.io iptables debootstrap \
                docker-compose bindfs util-linux curl openssh-client nginx-light libnginx-mod-http-js
    } </dev/null >"$log" 2>&1 || cannot "apt-get cannot install it: $(tail -n 1 "$log")"
fi

if ! answers; then
    [ "$(id -u)" = 0 ] || cannot "it is not running, and only root can start it"
    # A session of its own: it outlives this script and the signals of its terminal.
    setsid dockerd >>"$log" 2>&1 </dev/null &
    echo $! >"$started"
    for _ in $(seq 60); do
        answers && break
        sleep 0.5
    done
    answers || cannot "dockerd does not answer within 30 s: $(tail -n 1 "$log")"
fi
echo "engine: Docker $("$docker" version --format '{{.Server.Version}}')"
