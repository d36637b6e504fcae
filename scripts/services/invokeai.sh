#!/usr/bin/env bash
# Installs InvokeAI from the package index. Apache-2.0. Never older than 6.13.8; its pages are in the wheel.
# Upstream: pip install "invokeai[cuda]" with torch 2.7.1 for CUDA 12.8. starlette 1.8 and newer break it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=invokeai
pin=${PILOT_PIN:-6.14.2}
version="InvokeAI $pin"
gigabytes=12
steps=(environment torch operators packages)

torch() { torch_install cu128 "torch==${PILOT_TORCH_VERSION:-2.7.1}" "torchvision==${PILOT_TORCHVISION_VERSION:-0.22.1}"; }

# On a machine without a GPU, whose torch is a CPU build.
operators() {
    local site
    if [[ "$(installed torch)" == *+cpu ]]; then
        site=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        cp "$code/scripts/services/torchvision_on_cpu.py" "$site/sitecustomize.py"
    fi
}

packages() {
    # The versions that it was seen to start with: without them pip tries hundreds.
    local known=$code/scripts/services/invokeai-$pin.txt
    [ -e "$known" ] || known=/dev/null
    # The torch that is there stays: another build would be several GB more.
    pip_install --constraint "$known" "invokeai==$pin" "torch==$(installed torch)" "torchvision==$(installed torchvision)" \
        "starlette<1.8"
    say "InvokeAI $(installed invokeai), torch $(installed torch)"
}

# The version of a package in the environment.
installed() { venv/bin/python -c 'import sys, importlib.metadata as m; print(m.version(sys.argv[1]))' "$1"; }

main "$@"
