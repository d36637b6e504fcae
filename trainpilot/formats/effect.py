"""What an adapter does to a weight, straight from the formulas and without peft. Used by `verify`.

LoRA: alpha/r B A (Hu et al. 2021). DoRA: m (W + D) / |W + D| by output row, D the LoRA (Liu et al. 2024).
LoHa: alpha/r (A1 B1) * (A2 B2), element by element (Hyeon-Woo et al. 2021). LoKr: alpha/r W1 (x) W2, Kronecker
(Yeh et al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainpilot.formats.state import DOWN, MAGNITUDE, UP, AdapterState, ModuleWeights


def widened(state: AdapterState, dtype: torch.dtype) -> AdapterState:
    """`state` as a file in `dtype` holds it, in fp32 on the CPU."""
    return {
        component: {
            name: ModuleWeights(
                weights.type,
                {leaf: tensor.detach().to("cpu", dtype).float() for leaf, tensor in weights.tensors.items()},
                weights.rank,
                weights.alpha,
            )
            for name, weights in modules.items()
        }
        for component, modules in state.items()
    }


def delta(weights: ModuleWeights, shape: torch.Size) -> Tensor:
    """What is added to a weight of `shape` ([out, in] or [out, in, k, k]); of DoRA the part inside the norm."""
    tensors = weights.tensors
    if weights.type == "lora":
        product = tensors[UP].flatten(1) @ tensors[DOWN].flatten(1)
    elif weights.type == "loha":
        product = _core(tensors, "hada_w1", "hada_t1") * _core(tensors, "hada_w2", "hada_t2")
    else:
        first, second = _core(tensors, "lokr_w1", ""), _core(tensors, "lokr_w2", "lokr_t2")
        product = torch.kron(first.reshape(*first.shape, *[1] * (second.dim() - 2)), second)
    return product.reshape(shape) * weights.scale


def _core(tensors: dict[str, Tensor], name: str, core: str) -> Tensor:
    """A factor that is whole, or a product of two, or of two and a core over the kernel (Tucker)."""
    if name in tensors:
        return tensors[name]
    left, right = tensors[f"{name}_a"], tensors[f"{name}_b"]
    if core in tensors:
        return torch.einsum("ijkl,ip,jr->prkl", tensors[core], left, right)
    return left @ right


def applied(weight: Tensor, weights: ModuleWeights) -> Tensor:
    """The adapted weight."""
    changed = weight + delta(weights, weight.shape)
    if MAGNITUDE not in weights.tensors:
        return changed
    norms = changed.flatten(1).norm(dim=1)
    factor = weights.tensors[MAGNITUDE].reshape(-1) / norms
    return changed * factor.reshape(-1, *[1] * (weight.dim() - 1))
