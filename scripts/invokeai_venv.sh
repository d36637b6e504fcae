#!/usr/bin/env bash
# Makes a virtual environment with InvokeAI, the consumer that tests/engine/test_invokeai_import.py asks to load our
# LoRA files. Apart from the project's own .venv, because InvokeAI pins other versions. About 2.7 GB; safe to repeat.
#
#   bash scripts/invokeai_venv.sh [FOLDER]     default ~/.cache/lora-pilot/invokeai
#   PILOT_INVOKEAI=FOLDER python -m pytest -m invokeai tests/engine/test_invokeai_import.py
#
#   PILOT_PYTHON       the Python to build on, else python3.11
#   PILOT_TORCH_INDEX  a package index to take CPU builds of torch from, where pip's own sources have none
set -euo pipefail

folder=${1:-$HOME/.cache/lora-pilot/invokeai}
invokeai=6.14.2
torch=2.13.0
python=${PILOT_PYTHON:-python3.11}

if [ ! -x "$folder/bin/python" ]; then
    "$python" -m venv "$folder"
fi
install=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check)
if [ -n "${PILOT_TORCH_INDEX:-}" ]; then
    "${install[@]}" --extra-index-url "$PILOT_TORCH_INDEX" "torch==$torch"
else
    "${install[@]}" "torch==$torch"
fi
# The torch that is there stays: InvokeAI accepts it, and another build would be several GB more.
"${install[@]}" "InvokeAI==$invokeai" "torch==$("$folder/bin/python" -m pip show torch 2>/dev/null | sed -n 's/^Version: //p')"

# Where torch is a CPU build.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$(dirname "${BASH_SOURCE[0]}")/services/torchvision_on_cpu.py" "$site/sitecustomize.py"
"$folder/bin/python" - <<'PYTHON'
import importlib.metadata
import torch, torchvision, invokeai.backend.model_manager.configs.factory
print("invokeai", importlib.metadata.version("InvokeAI"), "on torch", torch.__version__)
PYTHON
echo "ready: PILOT_INVOKEAI=$folder"
