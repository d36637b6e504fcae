"""Declares torchvision's operators, so that `import torchvision` works beside a CPU build of torch, where its compiled
library does not load. Becomes sitecustomize.py of InvokeAI's environment there; nothing that it needs calls them.
"""

import importlib.util

if importlib.util.find_spec("torch") and importlib.util.find_spec("torchvision"):
    import torch

    _roi = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
    _back = "Tensor grad, Tensor rois, {}float spatial_scale, int pooled_height, int pooled_width, {}"
    _size = "int batch_size, int channels, int height, int width"
    _names = ("weight", "offset", "mask", "bias")
    _conv = (
        "int stride_h, int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, int groups, int groups_off, bool use"
    )
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
