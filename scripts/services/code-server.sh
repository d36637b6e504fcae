#!/usr/bin/env bash
# Installs code-server from its standalone archive, with its own Node. MIT. Never older than 4.141.1.
# PILOT_SHA256 checks the archive where its digest is known.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

name=code-server
pin=${PILOT_PIN:-4.145.2}
source=${PILOT_SOURCE:-https://github.com/coder/code-server/releases/download/v$pin/code-server-$pin-linux-amd64.tar.gz}
version="code-server $pin"
gigabytes=1
steps=(archive)

archive() {
    download "$source" code-server.tar.gz "${PILOT_SHA256:-}"
    rm -rf code-server.partial code-server
    mkdir code-server.partial
    tar -xzf code-server.tar.gz -C code-server.partial --strip-components=1
    test -x code-server.partial/bin/code-server
    mv code-server.partial code-server
    rm code-server.tar.gz
}

main "$@"
