"""How large the adapter is: the modules it covers and the numbers it adds, from module shapes. Used by the plan.

Linears and 1x1 convolutions are chosen by `network.targets`, larger convolutions by `network.conv_rank`, and
`network.block_ranks` (regular expression -> rank) comes last. The engine asks `targets` about the loaded model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt

from trainpilot.config.schema import Network, RunConfig
from trainpilot.families.card import Card, select

# Layers that read or write the latents themselves: convolutions here carry the picture, not the concept.
_EDGES = ("conv_in", "conv_out")


@dataclass(frozen=True)
class Module:
    """One adapted module: component, name, rank, its shape, and the sizes of the tensors that are trained."""

    component: str
    name: str
    rank: int
    shape: tuple[int, ...]
    tensors: tuple[int, ...]

    @property
    def parameters(self) -> int:
        return sum(self.tensors)


def adapted(config: RunConfig, card: Card, shapes: Mapping[str, Mapping[str, Sequence[int]]]) -> list[Module]:
    """The adapter of a run over `shapes` (component -> module -> [out, in] or [out, in, k, k])."""
    found = _component("denoiser", shapes.get("denoiser", {}), card.patterns(config.network.targets), config.network)
    if config.text_encoder.train:
        for encoder in card.text_encoders:
            if encoder.get("trainable"):
                component = str(encoder["component"])
                found += _component(component, shapes.get(component, {}), card.text_targets, config.network)
    return found


def targets(
    shapes: Mapping[str, Sequence[int]], patterns: Iterable[str], network: Network
) -> list[tuple[str, int, float]]:
    """(module, rank, alpha) of what `network` adapts among `shapes`; the engine asks this too.

    patterns: what `Card.patterns` gives. `network.block_ranks` wins, its last matching pattern first; rank 0 leaves a
    module out. alpha / rank is the same everywhere, unless conv_alpha says otherwise.
    """
    chosen = set(select(shapes, patterns))
    ratio = network.alpha / network.rank
    found = []
    for name, shape in shapes.items():
        if name in _EDGES:
            continue
        if len(shape) == 4 and shape[2] > 1:
            rank = network.conv_rank
            scale = network.conv_alpha / rank if network.conv_alpha is not None and rank else ratio
        else:
            rank, scale = network.rank if name in chosen else 0, ratio
        for pattern, block_rank in reversed(network.block_ranks.items()):
            if rank and re.search(pattern, name):
                rank = block_rank
                break
        if rank:
            found.append((name, rank, scale * rank))
    return found


def _component(
    component: str, shapes: Mapping[str, Sequence[int]], patterns: Iterable[str], network: Network
) -> list[Module]:
    return [
        Module(component, name, rank, tuple(shapes[name]), _tensors(network.type, tuple(shapes[name]), rank))
        for name, rank, _ in targets(shapes, patterns, network)
    ]


def _tensors(kind: str, shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Sizes of the trained tensors of one module, as peft makes them."""
    out, inner = shape[:2]
    area = shape[2] * shape[3] if len(shape) == 4 else 1
    if kind in ("lora", "dora"):
        return (rank * inner * area, out * rank, *((out,) if kind == "dora" else ()))
    if kind == "loha":
        return (out * rank, rank * inner * area) * 2
    (out_low, out_high), (in_low, in_high) = _factors(out), _factors(inner)
    if rank < max(out_high, in_high) / 2:
        return (out_low * in_low, out_high * rank, rank * in_high * area)
    return (out_low * in_low, out_high * in_high * area)


def _factors(number: int) -> tuple[int, int]:
    """The two factors of a number nearest to its root, the smaller first (LoKr's decomposition)."""
    low = next(factor for factor in range(isqrt(number), 0, -1) if number % factor == 0)
    return low, number // low
