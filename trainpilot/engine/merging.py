"""Puts a LoRA file's weights into a loaded base model, at a strength. Used by `trainpilot sample` and evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainpilot.errors import PilotError
from trainpilot.families.protocol import Family, Parts
from trainpilot.formats.effect import applied
from trainpilot.formats.state import AdapterState, ModuleWeights


def merge(family: Family, parts: Parts, state: AdapterState, strength: float = 1.0) -> int:
    """Change the base's own weights, W + strength (W' - W), and return how many modules were changed.

    W' is the weight with the adapter at full strength, so 0 is the base and 1 the adapter as it was trained. Computed
    in float32. Components that are not loaded are left alone; PilotError names a module that the base does not have.
    """
    models: dict[str, nn.Module | None] = {"denoiser": parts.denoiser}
    models |= dict(zip(family.components[1:], parts.text_encoders, strict=False))
    changed = 0
    for component, modules in state.items():
        model = models.get(component)
        if model is None:
            continue
        for name, weights in modules.items():
            _change(model, component, name, weights, strength)
            changed += 1
    return changed


@torch.no_grad()
def _change(model: nn.Module, component: str, name: str, weights: ModuleWeights, strength: float) -> None:
    try:
        weight: Any = model.get_submodule(name).weight
    except AttributeError as error:
        raise PilotError(
            f"{component}.{name}", "the base model has no such module", "modules of the base", _OTHER
        ) from error
    exact = {leaf: tensor.to(weight.device, torch.float32) for leaf, tensor in weights.tensors.items()}
    base = weight.float()
    try:
        adapted = applied(base, ModuleWeights(weights.type, exact, weights.rank, weights.alpha))
    except RuntimeError as error:
        given = f"does not fit a weight of {list(weight.shape)}"
        raise PilotError(f"{component}.{name}", given, "an adapter of this base's size", _OTHER) from error
    weight.copy_(base + strength * (adapted - base))


_OTHER = "Choose the base model that the LoRA was made for."
