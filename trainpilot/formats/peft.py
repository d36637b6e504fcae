"""PEFT naming, which diffusers writes and loads: `unet.down_blocks...to_q.lora_A.weight`, alphas in the header.

The header's `lora_adapter_metadata` holds each component's LoraConfig as diffusers' save_lora_weights writes it;
without it a reader would take alpha for the rank. Used by the engine on request and by `convert`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.formats import storage
from trainpilot.formats.kohya import alpha_of, kind, rounded
from trainpilot.formats.names import names
from trainpilot.formats.state import DOWN, MAGNITUDE, UP, AdapterState, ModuleWeights

CONFIG_KEY = "lora_adapter_metadata"
_WRAPPER = "text_model."
_LEAF = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector(?:\.weight)?|hada_\w+|lokr_\w+|alpha)")


def write(path: Path, family: str, state: AdapterState, metadata: Mapping[str, str], dtype: torch.dtype) -> list[str]:
    """Write `state` to `path`; there is nothing to decide, so the list of notes is empty."""
    tensors, further = encode(family, state, dtype)
    storage.write(path, tensors, {**metadata, **further})
    return []


def encode(family: str, state: AdapterState, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of the file in `dtype`, and the metadata with the alphas."""
    table = names(family)
    tensors: dict[str, Tensor] = {}
    configs: dict[str, Any] = {}
    for component, modules in state.items():
        prefix = table.PEFT[component]
        clip = component != "denoiser" and any(".layers." in name for name in modules)
        for module, weights in modules.items():
            name = f"{prefix}.{_wrapped(module) if clip else module}"
            for leaf, tensor in weights.tensors.items():
                # peft leaves "weight" away after the magnitude; with it, transformers finds it too.
                tensors[f"{name}.{leaf}"] = storage.cast(name, tensor, dtype)
        if modules:
            configs |= {f"{prefix}.{key}": value for key, value in config(modules).items()}
    return tensors, {"format": "pt", CONFIG_KEY: json.dumps(configs, indent=2, sort_keys=True)}


def _wrapped(module: str) -> str:
    # Every transformers version loads the name with the wrapper; the newest ones alone load it without.
    return module if module.startswith((_WRAPPER, "text_projection")) else _WRAPPER + module


def config(modules: Mapping[str, ModuleWeights]) -> dict[str, Any]:
    """The peft configuration that builds these modules, as JSON: ranks and alphas by pattern of the whole name."""
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    rank = Counter(w.rank for w in modules.values()).most_common(1)[0][0]
    alpha = Counter(rounded(w.alpha) for w in modules.values()).most_common(1)[0][0]
    bare = {name.removeprefix(_WRAPPER): weights for name, weights in modules.items()}
    common: dict[str, Any] = {
        "r": rank,
        # An ending that both layouts of a CLIP encoder have.
        "target_modules": sorted(bare),
        "rank_pattern": {_pattern(name): w.rank for name, w in sorted(bare.items()) if w.rank != rank},
        "alpha_pattern": {
            _pattern(name): rounded(w.alpha) for name, w in sorted(bare.items()) if rounded(w.alpha) != alpha
        },
    }
    what = kind(modules)
    made: Any
    if what == "loha":
        made = LoHaConfig(alpha=alpha, **common)
    elif what == "lokr":
        made = LoKrConfig(alpha=alpha, **common)
    else:
        made = LoraConfig(lora_alpha=alpha, use_dora=what == "dora", **common)
    return {key: sorted(value) if isinstance(value, set) else value for key, value in made.to_dict().items()}


def _pattern(name: str) -> str:
    return rf"^(?:text_model\.)?{re.escape(name)}$"


def decode(family: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> AdapterState:
    """The state in a PEFT-named file's tensors. Alphas come from the header, else from `.alpha` tensors, else rank."""
    table = names(family)
    components = {prefix: component for component, prefix in table.PEFT.items()}
    configs = _configs(metadata, where)
    grouped: dict[tuple[str, str], dict[str, Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        prefix, _, rest = key.partition(".")
        found = _LEAF.fullmatch(rest)
        if prefix not in components or not found:
            unknown.append(key)
            continue
        leaf = found[2].removesuffix(".weight") + ".weight" if found[2].startswith("lora_") else found[2]
        grouped.setdefault((prefix, found[1]), {})[leaf] = tensor
    if unknown:
        raise PilotError(
            where,
            f"{len(unknown)} names that are not of {family}: {', '.join(sorted(unknown)[:4])}",
            f"names that begin with {', '.join(components)} and end in lora_A.weight and the like",
            "Take a file of this family, or one that diffusers or peft wrote.",
        )
    own = {prefix: _Settings.of(configs, prefix) for prefix in components}
    state: AdapterState = {}
    for (prefix, name), leaves in grouped.items():
        component = components[prefix]
        # The installed transformers keep the wrapper only where the encoder has a projection.
        wrapped = component == "text_encoder_2" and _WRAPPER + name.removeprefix(_WRAPPER)
        bare = name.removeprefix(_WRAPPER)
        module = wrapped if wrapped and ".layers." in name else bare
        state.setdefault(component, {})[module] = _module(leaves, bare, own[prefix], f"{where}: {prefix}.{name}")
    return state


def _module(leaves: dict[str, Tensor], bare: str, own: _Settings, where: str) -> ModuleWeights:
    given = alpha_of(leaves.pop("alpha")) if "alpha" in leaves else None
    found = set(leaves)
    type_: Any
    if {DOWN, UP} <= found <= {DOWN, UP, MAGNITUDE}:
        type_, rank = "lora", leaves[DOWN].shape[0]
    elif found and all(leaf.startswith("hada_") for leaf in found):
        type_, rank = "loha", leaves["hada_w1_b"].shape[0]
    elif found and all(leaf.startswith("lokr_") for leaf in found):
        decomposed = next((leaves[leaf] for leaf in ("lokr_w2_b", "lokr_w1_b") if leaf in leaves), None)
        # Two whole factors do not show the rank; the configuration has it.
        type_, rank = "lokr", int(own.rank(bare) or 1) if decomposed is None else decomposed.shape[0]
    else:
        raise PilotError(
            where, ", ".join(sorted(found)), "the weights of a LoRA, DoRA, LoHa or LoKr", "Check the file."
        )
    alpha = own.alpha(bare)
    if alpha is None:
        alpha = rank if given is None else given
    elif own.rslora:
        alpha *= rank**0.5
    return ModuleWeights(type_, leaves, rank, float(alpha))


@dataclass(frozen=True)
class _Settings:
    """Ranks and alphas of one component's peft configuration."""

    common: dict[str, float]
    patterns: dict[str, list[tuple[re.Pattern[str], float]]]
    rslora: bool

    @classmethod
    def of(cls, configs: Mapping[str, Any], prefix: str) -> _Settings:
        own = {key.removeprefix(prefix + "."): value for key, value in configs.items() if key.startswith(prefix + ".")}
        alpha = own.get("lora_alpha", own.get("alpha"))
        given = {"rank": own.get("r"), "alpha": alpha}
        patterns = {
            key: [(re.compile(rf"(?:.*\.)?(?:{pattern})"), float(v)) for pattern, v in (own.get(field) or {}).items()]
            for key, field in (("rank", "rank_pattern"), ("alpha", "alpha_pattern"))
        }
        common = {key: float(value) for key, value in given.items() if value is not None}
        return cls(common, patterns, bool(own.get("use_rslora")))

    def rank(self, module: str) -> float | None:
        return self._of("rank", module)

    def alpha(self, module: str) -> float | None:
        return self._of("alpha", module)

    def _of(self, key: str, module: str) -> float | None:
        matching = (value for pattern, value in self.patterns[key] if pattern.fullmatch(module))
        return next(matching, self.common.get(key))


def _configs(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    try:
        given = json.loads(metadata.get(CONFIG_KEY) or "{}")
    except ValueError as error:
        raise PilotError(f"{where}: metadata {CONFIG_KEY}", str(error), "JSON", "Export the file again.") from error
    return given if isinstance(given, dict) else {}
