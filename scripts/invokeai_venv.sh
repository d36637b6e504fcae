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

# torchvision's compiled operators do not load beside a CPU build of torch, and its import fails over their absence.
# Nothing that reads a LoRA calls them, so it is enough that they are declared.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cat >"$site/sitecustomize.py" <<'PYTHON'
"""Declares torchvision's operators, so that `import torchvision` works without its compiled library."""
import importlib.util

if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
    import torch

    _roi = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
    _back = "Tensor grad, Tensor rois, {}float spatial_scale, int pooled_height, int pooled_width, {}"
    _size = "int batch_size, int channels, int height, int width"
    _names = ("weight", "offset", "mask", "bias")
    _conv = "int stride_h, int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, int groups, int groups_off, bool use"
    _tensors = "Tensor input, " + ", ".join("Tensor " + name for name in _names)
    _library = torch.library.Library("torchvision", "DEF")
    for _schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        f"roi_align({_roi}, int sampling_ratio, bool aligned) -> Tensor",
        f"_roi_align_backward({_back.format('', _size)}, int sampling_ratio, bool aligned) -> Tensor",
        f"roi_pool({_roi}) -> (Tensor, Tensor)",
        f"_roi_pool_backward({_back.format('Tensor argmax, ', _size)}) -> Tensor",
        f"ps_roi_align({_roi}, int sampling_ratio) -> (Tensor, Tensor)",
        f"_ps_roi_align_backward({_back.format('Tensor mapping, ', 'int sampling_ratio, ' + _size)}) -> Tensor",
        f"ps_roi_pool({_roi}) -> (Tensor, Tensor)",
        f"_ps_roi_pool_backward({_back.format('Tensor mapping, ', _size)}) -> Tensor",
        f"deform_conv2d({_tensors}, {_conv}) -> Tensor",
        f"_deform_conv2d_backward(Tensor grad, {_tensors}, {_conv}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    ):
        _library.define(_schema)
PYTHON
"$folder/bin/python" - <<'PYTHON'
import importlib.metadata
import torch, torchvision, invokeai.backend.model_manager.configs.factory
print("invokeai", importlib.metadata.version("InvokeAI"), "on torch", torch.__version__)
PYTHON
echo "ready: PILOT_INVOKEAI=$folder"
