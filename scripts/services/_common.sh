#!/usr/bin/env bash
# What the installers of this folder share; each sets its facts, defines its steps and ends with: main "$@"
#
#   name      the service, as in controlpilot/services          version   what is installed, in words
#   gigabytes free space that it needs                           steps     names of functions, in order
#
#   <service>.sh install   fetches and builds, step by step; a step that was done is not done again
#   <service>.sh remove    moves program and environment to the workspace's trash; settings and data stay
#   <service>.sh size      what it takes on disk, or would take
#   <service>.sh version   what is installed, or would be
#
# Where: PILOT_APPS, else <workspace>/apps: a place that survives the container. The image is built with /opt/apps.
# Exit codes: 0 done, 2 nothing to be done here (the last line says why), 3 failed (again goes on where it ended).
# Sources can be replaced, for a mirror or a test: PILOT_SOURCE (repository or archive), PILOT_PIN (commit or tag),
# PILOT_TORCH_INDEX (a package index for torch; "none": pip's own sources), PILOT_BASE_PYTHON (for the environment).

set -euo pipefail
umask 002

say() { printf '%s\n' "$*"; }
refuse() {
    say "$name: $*" >&2
    exit 2
}

code=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
workspace=${PILOT_WORKSPACE:-/workspace}
apps=${PILOT_APPS:-$workspace/apps}
base_python=${PILOT_BASE_PYTHON:-python3.11}
panel_python=${PILOT_PYTHON:-$code/.venv/bin/python}

# Runs one step once: a stamp with the pin says that it was done, so another pin does it again.
step() {
    local stamp=$app/.steps/$1@${pin//\//_}
    if [ -e "$stamp" ]; then
        say "== $1: done before"
        return
    fi
    say "== $1"
    # In a process of its own, and not as a condition: there bash would go on after a line that failed.
    local status
    set +e
    (
        set -e
        cd "$app"
        "$1"
    )
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        say "$name: the step $1 failed; install again goes on from here" >&2
        exit 3
    fi
    mkdir -p "$app/.steps"
    : >"$stamp"
}

free_space() {
    local folder=$apps free
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(df --output=avail -B1000000000 "$folder" | tail -1 | tr -d ' ')
    say "$name needs about $gigabytes GB in $apps, $free GB are free"
    if [ "$free" -lt "$gigabytes" ]; then
        refuse "needs $gigabytes GB in $folder, only $free GB are free; free some, or set PILOT_APPS to another disk"
    fi
}

# The repository at its pin, in src/, with what it includes.
fetch() {
    if [ ! -d src/.git ]; then
        rm -rf src.partial
        git clone --progress --filter=blob:none --no-checkout "$source" src.partial
        mv src.partial src
    fi
    if ! git -C src rev-parse --verify --quiet "$pin^{commit}" >/dev/null; then
        git -C src fetch --progress --tags origin
    fi
    git -C src -c advice.detachedHead=false checkout --force "$pin"
    git -C src submodule update --init --recursive --progress
    say "at $(git -C src rev-parse HEAD)"
}

# An environment of its own; $1 optional: the Python to build it on.
environment() {
    "${1:-$base_python}" -m venv --clear venv
}

# pip in the service's environment; its downloads are kept until everything is installed.
pip_install() {
    PIP_CACHE_DIR=$app/.downloads venv/bin/python -m pip install --disable-pip-version-check --no-input "$@"
}

# torch and its kin from the index for the CUDA version that the service is built for: torch_install cu130 torch==...
torch_install() {
    local index=${PILOT_TORCH_INDEX:-https://download.pytorch.org/whl/$1}
    shift
    if [ "$index" = none ]; then pip_install "$@"; else pip_install --index-url "$index" "$@"; fi
}

# A file from the network, checked where its digest is known: download URL FILE [SHA256]
download() {
    curl --fail --location --retry 3 --continue-at - --no-progress-meter --proto '=https,file' --output "$2.partial" "$1"
    if [ -n "${3:-}" ]; then
        printf '%s  %s\n' "$3" "$2.partial" | sha256sum --check --quiet
    fi
    mv "$2.partial" "$2"
}

install() {
    free_space
    mkdir -p "$app/.steps"
    exec 9>"$app/.lock"
    flock --nonblock 9 || refuse "another installation of it is running"
    # Until all is done again, it does not count as installed.
    if [ "$(cat "$app/INSTALLED" 2>/dev/null)" = "$version" ]; then
        say "$name: $version is installed"
        return
    fi
    rm -f "$app/INSTALLED"
    local one
    for one in "${steps[@]}"; do step "$one"; done
    rm -rf "$app/.downloads"
    printf '%s\n' "$version" >"$app/INSTALLED.partial"
    mv "$app/INSTALLED.partial" "$app/INSTALLED"
    say "$name: installed $version in $app ($(du -sh "$app" | cut -f1))"
}

remove() {
    [ -d "$app" ] || refuse "is not installed in $apps"
    "$panel_python" -m controlpilot.services.remove "$name" "$app"
}

size() {
    if [ -d "$app" ]; then du -sh "$app" | cut -f1; else say "about $gigabytes GB"; fi
}

version() {
    if [ -e "$app/INSTALLED" ]; then cat "$app/INSTALLED"; else say "not installed; would be $version"; fi
}

main() {
    app=$apps/$name
    case ${1:-} in
    install | remove | size | version) "$1" ;;
    *)
        say "usage: $name.sh install | remove | size | version" >&2
        exit 2
        ;;
    esac
}
