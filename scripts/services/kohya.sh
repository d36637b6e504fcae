#!/usr/bin/env bash
# Installs the Kohya SS GUI (Gradio 6.17.3, sd-scripts 0.11.1). Apache-2.0. Needs git, libgl1, libglib2.0-0, python3-tk.
# Upstream: git clone --recursive, then `uv sync --frozen --no-dev --no-editable`: its lock file pins everything, torch
# 2.7.0 for CUDA 12.8 included. A checkout without a lock file is installed from requirements_linux.txt, as its own
# setup does with pip.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=kohya
source=${PILOT_SOURCE:-https://github.com/bmaltais/kohya_ss.git}
pin=${PILOT_PIN:-45088f04}
version="Kohya SS $pin"
gigabytes=16
steps=(fetch environment packages)

packages() {
    if [ -e src/uv.lock ]; then
        pip_install "uv==0.13.9"
        cd src
        UV_PROJECT_ENVIRONMENT=$app/venv UV_CACHE_DIR=$app/.downloads/uv VIRTUAL_ENV=$app/venv \
            "$app/venv/bin/uv" sync --frozen --no-dev --no-editable --inexact
    else
        cd src
        "$app/venv/bin/python" -m pip install --disable-pip-version-check --no-input -r requirements_linux.txt
    fi
}

main "$@"
