#!/usr/bin/env bash
# Installs ComfyUI. GPL-3.0. Never older than 0.28 (CVE-2026-56670 and following).
# Upstream: torch for CUDA 13.0, then requirements.txt. Its manager, which installs code from the network, only with
# PILOT_COMFYUI_MANAGER=1; start it with --enable-manager.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=comfyui
source=${PILOT_SOURCE:-https://github.com/comfyanonymous/ComfyUI.git}
pin=${PILOT_PIN:-v0.45.2}
version="ComfyUI $pin"
gigabytes=12
steps=(fetch environment torch packages)

torch() { torch_install cu130 "torch==2.13.0" "torchvision==0.28.0" "torchaudio==2.11.0"; }

packages() {
    pip_install -r src/requirements.txt
    if [ "${PILOT_COMFYUI_MANAGER:-0}" = 1 ]; then pip_install -r src/manager_requirements.txt; fi
}

main "$@"
