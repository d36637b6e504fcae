#!/usr/bin/env bash
# Sets up, seeds a workspace, trains the demo LoRA on the base model that comes with the project, and serves the panel.
#
#   bash scripts/demo.sh [--headless] [options of `trainpilot train`]
#
#   --headless        end when the LoRA is done, with exit status 0, without the panel
#   PILOT_WORKSPACE   the workspace; ./workspace
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

headless=no
passed=()
for argument in "$@"; do
    if [ "$argument" = --headless ]; then
        headless=yes
    else
        passed+=("$argument")
    fi
done

bash scripts/setup.sh

workspace=${PILOT_WORKSPACE:-$PWD/workspace}
name="demo-$(date +%Y%m%d-%H%M%S)"
# --restore: the demo needs its files, also where somebody deleted them from the workspace.
.venv/bin/python -m trainpilot.template workspace-template "$workspace" --restore
.venv/bin/python -m trainpilot train --profile demo --dataset images/10_zorp --base-model pilot-tiny \
    --workspace "$workspace" --name "$name" ${passed[@]+"${passed[@]}"}

run="$workspace/outputs/$name"
echo
echo "LoRA     $run/$name.safetensors"
echo "samples  $run/samples"
[ ! -d "$run/report" ] || echo "report   $run/report"
if [ "$headless" = no ]; then
    echo "The panel follows; Ctrl+C ends it, and --headless ends before it."
    exec .venv/bin/python -m controlpilot serve --workspace "$workspace"
fi
