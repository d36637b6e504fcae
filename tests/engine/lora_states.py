"""Random adapters on the modules of a model or of a family's shapes, for the tests of the formats."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainpilot.formats.state import DOWN, MAGNITUDE, UP, AdapterState, ModuleWeights

Shapes = Mapping[str, Mapping[str, list[int]]]


def shapes_of(models: Mapping[str, torch.nn.Module]) -> dict[str, dict[str, list[int]]]:
    """component -> module -> weight shape, of every linear layer and convolution."""
    return {
        component: {
            name: list(module.weight.shape)
            for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
        }
        for component, model in models.items()
    }


def lora(shape: list[int], rank: int, alpha: float, generator: torch.Generator, *, dora: bool = False) -> ModuleWeights:
    """A random LoRA whose up weights are not zero."""
    tensors = {
        DOWN: torch.randn(rank, *shape[1:], generator=generator) * 0.1,
        UP: torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=generator) * 0.1,
    }
    if dora:
        magnitude = torch.rand(shape[0], generator=generator) + 0.5
        tensors[MAGNITUDE] = magnitude.reshape(1, -1, 1, 1) if len(shape) == 4 else magnitude
    return ModuleWeights("lora", tensors, rank, alpha)


def state(
    shapes: Shapes, rank: int = 4, alpha: float = 2.0, *, seed: int = 0, dora: bool = False, keep: str = ""
) -> AdapterState:
    """A LoRA on every module whose name contains `keep`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        component: {
            name: lora(shape, rank, alpha, generator, dora=dora) for name, shape in modules.items() if keep in name
        }
        for component, modules in shapes.items()
    }


def same(a: AdapterState, b: AdapterState) -> bool:
    """Bit for bit, alphas and ranks included."""
    if {c: set(m) for c, m in a.items() if m} != {c: set(m) for c, m in b.items() if m}:
        return False
    return all(
        (x.type, x.rank, x.alpha) == (y.type, y.rank, y.alpha)
        and x.tensors.keys() == y.tensors.keys()
        and all(torch.equal(tensor, y.tensors[leaf]) for leaf, tensor in x.tensors.items())
        for component in a
        for name, x in a[component].items()
        for y in [b[component][name]]
    )


def delta(weights: ModuleWeights) -> Tensor:
    """The change of the weight matrix that a LoRA makes, as its formula says: alpha / rank * up @ down."""
    down, up = weights.tensors[DOWN].float(), weights.tensors[UP].float()
    product = (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    return product * (weights.alpha / weights.rank)
