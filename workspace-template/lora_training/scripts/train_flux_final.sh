#!/usr/bin/env bash
# Trains by configs/flux_final.toml and the variables of the environment. DRY_RUN=1 only shows the command.
set -euo pipefail
exec "${PILOT_PYTHON:-python}" "$(dirname "$0")/build_train_cmd.py" --profile final --run
