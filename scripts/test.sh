#!/usr/bin/env bash
# Sets up and runs the tests; the linters, the type checker and the import rule are tests too (tests/unit/test_house.py).
#
#   bash scripts/test.sh [--all] [arguments of pytest]
#
#   --all                also tests/container, which needs an engine for containers; on Debian, root gets it and nginx
#                        installed where they are missing. An engine that was started here is stopped at the end.
#   PILOT_TEST_WORKERS   test processes at once, one thread each; 2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

containers=no
passed=()
for argument in "$@"; do
    if [ "$argument" = --all ]; then
        containers=yes
    else
        passed+=("$argument")
    fi
done

bash scripts/setup.sh
if [ $containers = yes ]; then
    trap 'bash scripts/container/engine.sh stop' EXIT
    bash scripts/container/engine.sh || {
        echo "scripts/test.sh --all needs it for tests/container; all other tests run without --all" >&2
        exit 2
    }
fi

# One thread a process: two processes of one thread are faster here than one of two, and sums keep their order.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Nothing in the tests may reach out: a test that needs the network is a mistake, and fails at once.
export HF_HUB_OFFLINE=1
tests() {
    .venv/bin/python -m pytest --numprocesses "${PILOT_TEST_WORKERS:-2}" --dist loadfile "$@" \
        ${passed[@]+"${passed[@]}"} </dev/null
}
tests --ignore=tests/container
# Alone, and last: every container changes the machine's network, and Chromium drops what it is loading when that happens.
if [ $containers = yes ]; then
    tests tests/container
fi
