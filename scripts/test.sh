#!/usr/bin/env bash
# Sets up and runs the tests; the linters, the type checker and the import rule are tests too (tests/unit/test_house.py).
#
#   bash scripts/test.sh [--all] [arguments of pytest]
#
#   --all                also tests/container, which needs an engine for containers
#   PILOT_TEST_WORKERS   test processes at once, one thread each; 2
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ignored=(--ignore=tests/container)
passed=()
for argument in "$@"; do
    if [ "$argument" = --all ]; then
        ignored=()
    else
        passed+=("$argument")
    fi
done

bash scripts/setup.sh
if [ ${#ignored[@]} -eq 0 ]; then
    # 3: none can be had here; the container tests say so when they are skipped.
    bash scripts/container/engine.sh || [ $? = 3 ]
fi

# One thread a process: two processes of one thread are faster here than one of two, and sums keep their order.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# Nothing in the tests may reach out: a test that needs the network is a mistake, and fails at once.
export HF_HUB_OFFLINE=1
exec .venv/bin/python -m pytest --numprocesses "${PILOT_TEST_WORKERS:-2}" --dist loadfile \
    ${ignored[@]+"${ignored[@]}"} ${passed[@]+"${passed[@]}"} </dev/null
