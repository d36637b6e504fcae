#!/usr/bin/env bash
# PROFILE=fast or PROFILE=final: the same training, watched on a live dashboard. DRY_RUN=1 only shows the command.
set -euo pipefail
exec "${PILOT_PYTHON:-python}" "$(dirname "$0")/build_train_cmd.py" --profile "${PROFILE:-fast}" --run --dashboard
