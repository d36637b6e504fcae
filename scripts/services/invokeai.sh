#!/usr/bin/env bash
# Installs InvokeAI from the package index. Apache-2.0. Never older than 6.13.8; its pages are in the wheel.
# Upstream: pip install "invokeai[cuda]" with torch 2.7.1 for CUDA 12.8. starlette 1.8 and newer break it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=invokeai
pin=${PILOT_PIN:-6.14.2}
version="InvokeAI $pin"
gigabytes=12
steps=(environment torch packages)

torch() { torch_install cu128 "torch==${PILOT_TORCH_VERSION:-2.7.1}"; }

packages() {
    # The torch that is there stays: another build would be several GB more.
    local kept
    kept=$(venv/bin/python -m pip show torch 2>/dev/null | sed -n 's/^Version: //p')
    pip_install "invokeai==$pin" "torch==$kept" "starlette<1.8"
    venv/bin/python -c 'import importlib.metadata as m; print("InvokeAI", m.version("invokeai"), "torch", m.version("torch"))'
}

main "$@"
