"""The trained layers: put into a base model, read out, written back, switched off and scaled. Built on peft.

Used by the trainer, the checkpoints, the samples and the evaluation. Names of modules are those of the diffusers and
transformers models, without any adapter's own; names of tensors are peft's leaves ("lora_A.weight", "hada_w1_a").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trainpilot.config.schema import Network
from trainpilot.errors import PilotError
from trainpilot.formats.state import AdapterState, ModuleWeights
from trainpilot.plan.network import targets as network_targets
from trainpilot.randomness import draw_seed

ADAPTER = "pilot"
Kind = Literal["lora", "loha", "lokr"]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Weight shapes of the linears and convolutions of a model. Quantised linears subclass nn.Linear."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = (module.out_features, module.in_features)
        elif isinstance(module, nn.Conv2d):
            found[name] = tuple(module.weight.shape)
    return found


def _peft_config(targets: list[tuple[str, int, float]], network: Network) -> Any:
    _, rank, alpha = targets[0]
    common: dict[str, Any] = {
        "r": rank,
        "target_modules": [name for name, _, _ in targets],
        "rank_pattern": {f"^{re.escape(name)}$": own for name, own, _ in targets if own != rank},
        "alpha_pattern": {f"^{re.escape(name)}$": own for name, _, own in targets if own != alpha},
    }
    if network.type == "loha":
        return LoHaConfig(alpha=alpha, rank_dropout=network.dropout, **common)
    if network.type == "lokr":
        return LoKrConfig(alpha=alpha, rank_dropout=network.dropout, **common)
    return LoraConfig(
        lora_alpha=alpha,
        lora_dropout=network.dropout,
        use_rslora=network.rslora,
        use_dora=network.type == "dora",
        init_lora_weights=True,
        **common,
    )


class Adapter:
    """The adapters of one run, over one or several components ("denoiser", "text_encoder", "text_encoder_2")."""

    def __init__(self, models: Mapping[str, nn.Module], network_type: Kind | Literal["dora"]) -> None:
        self.models = dict(models)
        self.type: Kind = "lora" if network_type == "dora" else network_type
        self._layers = {
            component: {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
            for component, model in self.models.items()
        }

    @classmethod
    def inject(
        cls, models: Mapping[str, nn.Module], patterns: Mapping[str, list[str]], network: Network, seed: int
    ) -> Adapter:
        """Freeze `models`, put fresh fp32 adapters into them and return the handle.

        Initial weights are a function of (seed, component); the global random state is left as it was.
        """
        for component, model in models.items():
            model.requires_grad_(False)
            targets = network_targets(shapes_of(model), patterns[component], network)
            if not targets:
                raise PilotError(
                    f"network.targets ({component})",
                    ", ".join(patterns[component]) or "nothing",
                    "endings of module names, for example attn.to_q",
                    "Take a preset of `trainpilot families`, or a rank other than 0.",
                )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw_seed(seed, "init " + component))
                inject_adapter_in_model(_peft_config(targets, network), model, ADAPTER)
        adapter = cls(models, network.type)
        for parameter in adapter.parameters():
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        return adapter

    def named_parameters(self, component: str | None = None) -> Iterator[tuple[str, nn.Parameter]]:
        """(component:module:leaf, parameter) in a fixed order."""
        for name, layers in self._layers.items():
            if component not in (None, name):
                continue
            for module_name, layer in layers.items():
                for leaf, parameter in layer.named_parameters():
                    if f".{ADAPTER}" in leaf:
                        yield f"{name}:{module_name}:{leaf.replace(f'.{ADAPTER}', '')}", parameter

    def parameters(self, component: str | None = None) -> list[nn.Parameter]:
        return [parameter for _, parameter in self.named_parameters(component)]

    def tensors(self) -> dict[str, Tensor]:
        """The adapter's weights as they are (fp32, no copy), by the names of `named_parameters`."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Write weights that `tensors()` gave, in place; every name has to be there."""
        for name, parameter in self.named_parameters():
            parameter.copy_(tensors[name])

    def collect(self) -> AdapterState:
        """The adapter as the formats room takes it; alpha is the true scale times the rank (rsLoRA included)."""
        state: AdapterState = {}
        for component, layers in self._layers.items():
            modules = state.setdefault(component, {})
            for name, layer in layers.items():
                tensors = {
                    leaf.replace(f".{ADAPTER}", ""): parameter.detach()
                    for leaf, parameter in layer.named_parameters()
                    if f".{ADAPTER}" in leaf
                }
                rank = layer.r[ADAPTER]
                modules[name] = ModuleWeights(
                    type=self.type, tensors=tensors, rank=rank, alpha=float(layer.scaling[ADAPTER]) * rank
                )
        return state

    @torch.no_grad()
    def warm_start(self, state: AdapterState, where: str) -> list[str]:
        """Begin from the weights of a LoRA file; its modules and ranks must be ours. Returns what was left fresh.

        A file with another alpha is folded in: its up weights are scaled so that the product stays the same.
        """
        fresh: list[str] = []
        for component, layers in self._layers.items():
            given = state.get(component, {})
            for name, layer in layers.items():
                weights = given.get(name)
                if weights is None:
                    fresh.append(f"{component}.{name}")
                    continue
                if weights.rank != layer.r[ADAPTER] or weights.type != self.type:
                    raise PilotError(
                        where,
                        f"{weights.type} of rank {weights.rank} for {name}",
                        f"{self.type} of rank {layer.r[ADAPTER]}",
                        f"Set network.rank={weights.rank} and network.type to that of the file, or take another file.",
                    )
                scale = weights.alpha / weights.rank / float(layer.scaling[ADAPTER])
                for leaf, parameter in layer.named_parameters():
                    plain = leaf.replace(f".{ADAPTER}", "")
                    if plain != leaf:
                        up = plain in ("lora_B.weight", "hada_w1_b", "lokr_w1", "lokr_w1_b")
                        parameter.copy_(weights.tensors[plain].reshape(parameter.shape) * (scale if up else 1.0))
        if len(fresh) == sum(len(layers) for layers in self._layers.values()):
            raise PilotError(
                where, "no module of this run's adapter", "a LoRA of the same family", "Take another file."
            )
        return fresh

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model alone."""
        self._enable(False)
        try:
            yield
        finally:
            self._enable(True)

    def _enable(self, on: bool) -> None:
        # peft's own switch also freezes the parameters; here only the forward pass is meant.
        for layer in self._each():
            layer._disable_adapters = not on

    @contextmanager
    def strength(self, factor: float) -> Iterator[None]:
        """The adapter's effect times `factor`, as a generation tool's weight would do."""
        before = [layer.scaling[ADAPTER] for layer in self._each()]
        for layer, scale in zip(self._each(), before, strict=True):
            layer.scaling[ADAPTER] = scale * factor
        try:
            yield
        finally:
            for layer, scale in zip(self._each(), before, strict=True):
                layer.scaling[ADAPTER] = scale

    def _each(self) -> Iterator[Any]:
        for layers in self._layers.values():
            yield from layers.values()

    @torch.no_grad()
    def limit_norms(self, most: float) -> None:
        """Scale both factors of a module by sqrt(most / N) where its norm N = |alpha/r B A| exceeds `most` (Kohya).

        The Frobenius norm comes from the rank x rank Gram matrices, tr((B'B)(AA')), so that B A is never formed, and
        the decision stays on the device.
        """
        for layer in self._each():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            a, b = down.flatten(1), up.flatten(1)
            squared = ((b.T @ b) * (a @ a.T)).sum().clamp_min(0)
            norm = squared.sqrt() * layer.scaling[ADAPTER]
            factor = torch.where(norm > most, (most / norm.clamp_min(1e-12)).sqrt(), torch.ones_like(norm))
            down.mul_(factor)
            up.mul_(factor)
