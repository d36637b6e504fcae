#!/usr/bin/env bash
# Installs Ostris' AI Toolkit and its pages. MIT. Needs git and ffmpeg; Node comes along.
# Upstream's order: torch first, then requirements.txt, then a newer torchcodec; `npm ci`, Prisma's client and tables,
# `npm run build` (which fetches a font). Node 24.22.1 or newer: older ones are open to CVE-2026-111497.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=ai-toolkit
source=${PILOT_SOURCE:-https://github.com/ostris/ai-toolkit.git}
pin=${PILOT_PIN:-27a03a91}
node_version=24.22.1
node_source=${PILOT_NODE_SOURCE:-https://nodejs.org/dist/v$node_version/node-v$node_version-linux-x64.tar.gz}
version="AI Toolkit $pin"
gigabytes=18
steps=(fetch node environment torch packages database pages)

node() {
    download "$node_source" node.tar.gz "${PILOT_NODE_SHA256:-}"
    rm -rf node
    mkdir node
    tar -xzf node.tar.gz -C node --strip-components=1
    rm node.tar.gz
    node/bin/node --version
}

torch() { torch_install cu130 "torch==2.13.0" "torchvision==0.28.0" "torchaudio==2.11.0"; }

packages() {
    (cd src && PIP_CACHE_DIR=$app/.downloads ../venv/bin/python -m pip install --disable-pip-version-check --no-input \
        -r requirements.txt)
    if [ -z "${PILOT_SOURCE:-}" ]; then pip_install --upgrade "torchcodec==0.15.0"; fi
    # Its worker looks for .venv in the repository, else any python3 on PATH would run the jobs.
    ln -sfn "$app/venv" src/.venv
}

# The tables are kept apart from the program: removing it keeps what was set up. Both its parts insist on this name.
database() {
    mkdir -p data
    touch data/aitk_db.db
    ln -sfn "$app/data/aitk_db.db" src/aitk_db.db
}

pages() {
    export PATH=$app/node/bin:$PATH NEXT_TELEMETRY_DISABLED=1 npm_config_cache=$app/.downloads/npm
    cd src/ui
    npm ci --no-audit --no-fund
    npx --no-install prisma generate
    npx --no-install prisma db push
    npm run build
}

main "$@"
