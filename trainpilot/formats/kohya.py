"""Kohya naming, which ComfyUI, A1111, Forge and InvokeAI load: `lora_unet_..._to_q.lora_down.weight`.

Used by the engine for results and checkpoints and by `convert`. Leaves by kind of adapter:
LoRA `lora_down.weight` [r, in(,k,k)], `lora_up.weight` [out, r(,1,1)]; DoRA also `dora_scale` [out, 1(,1,1)], the
norm of each output row as LyCORIS (wd_on_output) and ComfyUI read it; LoHa and LoKr the names of LyCORIS, which peft
shares (`hada_w1_a`, `lokr_w1` ...). `alpha` is a scalar; the effect is alpha / rank times the product.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.formats import fusion, storage
from trainpilot.formats.names import names, refuse_unmergeable
from trainpilot.formats.state import DOWN, MAGNITUDE, UP, AdapterState, ModuleWeights

PARTS_KEY = "trainpilot_parts"  # metadata: joined name -> record of fusion.merge, so that reading is exact
_LEAVES = {DOWN: "lora_down.weight", UP: "lora_up.weight", MAGNITUDE: "dora_scale"}
_LEAVES_BACK = {file: leaf for leaf, file in _LEAVES.items()}


def write(path: Path, family: str, state: AdapterState, metadata: Mapping[str, str], dtype: torch.dtype) -> list[str]:
    """Write `state` to `path`; returns what had to be decided on the way, one sentence each.

    Raises PilotError for modules the original layout cannot express, RunFailed for NaN, infinity or a full disk.
    """
    tensors, further, notes = encode(family, state, dtype)
    storage.write(path, tensors, {**metadata, **further})
    return notes


def encode(family: str, state: AdapterState, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """The tensors of the file in `dtype`, metadata that belongs to them, and notes."""
    table = names(family)
    refuse_unmergeable(family, {component: (set(modules), kind(modules)) for component, modules in state.items()})
    tensors: dict[str, Tensor] = {}
    records: dict[str, fusion.Record] = {}
    notes: list[str] = []
    for component, given in state.items():
        modules = {name: ModuleWeights(w.type, w.tensors, w.rank, rounded(w.alpha)) for name, w in given.items()}
        if table.ONE_ALPHA:
            modules = one_alpha(component, modules, notes)
        done: set[str] = set()
        for module in modules:
            place = table.place(component, module)
            if place.name in done:
                continue
            done.add(place.name)
            name = f"{table.KOHYA[component]}_{place.name}"
            weights = modules[module]
            if len(place.parts) > 1:
                width = weights.tensors[DOWN].shape[1]
                parts = [modules.get(part) for part in place.parts]
                weights, records[name] = fusion.merge(parts, [table.rows(part, width) for part in place.parts])
            elif place.swapped:
                weights = fusion.swap_halves(weights)
            _encode_module(tensors, name, weights, dtype)
    further = {PARTS_KEY: json.dumps(records, sort_keys=True, separators=(",", ":"))} if records else {}
    return tensors, further, notes


def kind(modules: Mapping[str, ModuleWeights]) -> str:
    """ "lora", "dora", "loha" or "lokr": what a component's modules are; they are all of one kind."""
    first = next(iter(modules.values()), None)
    if first is None:
        return "lora"
    return "dora" if MAGNITUDE in first.tensors else first.type


def one_alpha(component: str, modules: dict[str, ModuleWeights], notes: list[str]) -> dict[str, ModuleWeights]:
    """`modules` with the commonest alpha everywhere; another module's ratio goes into its up weights."""
    alphas = Counter(weights.alpha for weights in modules.values())
    if len(alphas) < 2 or any(weights.type != "lora" for weights in modules.values()):
        return modules
    common = alphas.most_common(1)[0][0]
    changed = sum(alphas.values()) - alphas[common]
    notes.append(
        f"{component}: {changed} modules have another alpha than {common:g}; the ratio is in their up weights, because "
        "diffusers loses differing alphas of Kohya files"
    )
    return {
        name: weights
        if weights.alpha == common
        else ModuleWeights(
            weights.type,
            weights.tensors | {UP: (weights.tensors[UP].float() * (weights.alpha / common))},
            weights.rank,
            common,
        )
        for name, weights in modules.items()
    }


def _encode_module(tensors: dict[str, Tensor], name: str, weights: ModuleWeights, dtype: torch.dtype) -> None:
    alpha = weights.alpha
    leaves = dict(weights.tensors)
    if "lokr_w1" in leaves and "lokr_w2" in leaves:
        # LyCORIS takes two whole factors at scale one and has the rank in alpha's place.
        leaves["lokr_w1"] = leaves["lokr_w1"] * weights.scale
        alpha = float(weights.rank)
    for leaf, tensor in leaves.items():
        if leaf == MAGNITUDE:
            tensor = tensor.reshape(-1, *[1] * (weights.tensors[DOWN].dim() - 1))
        tensors[f"{name}.{_LEAVES.get(leaf, leaf)}"] = storage.cast(name, tensor, dtype)
    tensors[f"{name}.alpha"] = storage.scalar(alpha, dtype)


def decode(family: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> AdapterState:
    """The state in a Kohya file's tensors. Raises PilotError that names what is not understood."""
    table = names(family)
    records = _records(metadata, where)
    prefixes = sorted(((prefix + "_", component) for component, prefix in table.KOHYA.items()), reverse=True)
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, leaf = key.partition(".")
        grouped.setdefault(name, {})[leaf] = tensor
    state: AdapterState = {}
    unknown: list[str] = []
    for name, leaves in grouped.items():
        prefix, component = next(((p, c) for p, c in prefixes if name.startswith(p)), ("", ""))
        try:
            modules = table.modules(component, name.removeprefix(prefix)) if component else ()
            weights = _decode_module(leaves, name)
        except KeyError:
            modules, weights = (), None
        if not modules or weights is None:
            unknown.append(name)
            continue
        found = state.setdefault(component, {})
        place = table.place(component, modules[0])
        if len(modules) > 1:
            if weights.type != "lora":
                raise PilotError(
                    f"{where}: {name}",
                    f"{weights.type} over {' + '.join(modules)}",
                    "lora or dora, which can be taken apart",
                    "Use the file where the original model layout is used.",
                )
            rows = [table.rows(module, weights.tensors[DOWN].shape[1]) for module in modules]
            for module, part in zip(modules, fusion.separate(weights, rows, records.get(name), name), strict=True):
                if part is not None:
                    found[module] = part
        else:
            found[modules[0]] = fusion.swap_halves(weights) if place.swapped else weights
    if unknown:
        raise PilotError(
            where,
            f"{len(unknown)} names that are not of {family}: {', '.join(sorted(unknown)[:4])}",
            f"names that begin with {', '.join(p for p, _ in prefixes)}, of LoRA, DoRA, LoHa or LoKr",
            "Take a file of this family; `trainpilot convert --help` lists what is read.",
        )
    return state


def _records(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    try:
        given = json.loads(metadata.get(PARTS_KEY, "{}"))
        return {
            name: record if record == "shared" else [None if e is None else (int(e[0]), float(e[1])) for e in record]
            for name, record in given.items()
        }
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise PilotError(
            f"{where}: metadata {PARTS_KEY}", str(error), "what TrainPilot wrote", "Remove it from the metadata."
        ) from error


def _decode_module(leaves: dict[str, Tensor], name: str) -> ModuleWeights | None:
    """None for leaves that are no known kind of adapter; a missing alpha means a scale of one."""
    tensors = {_LEAVES_BACK.get(leaf, leaf): tensor for leaf, tensor in leaves.items() if leaf != "alpha"}
    given = alpha_of(leaves["alpha"]) if "alpha" in leaves else None
    found = set(tensors)
    if {DOWN, UP} <= found <= {DOWN, UP, MAGNITUDE}:
        if MAGNITUDE in tensors:
            tensors[MAGNITUDE] = _magnitude(tensors[MAGNITUDE], tensors, name)
        rank = tensors[DOWN].shape[0]
        return ModuleWeights("lora", tensors, rank, float(rank) if given is None else given)
    if found and all(leaf.startswith("hada_") for leaf in found):
        rank = tensors["hada_w1_b"].shape[0]
        return ModuleWeights("loha", tensors, rank, float(rank) if given is None else given)
    if found and all(leaf.startswith("lokr_") for leaf in found):
        if "lokr_w1" in tensors and "lokr_w2" in tensors:
            # Two whole factors have scale one whatever alpha says; LyCORIS keeps the rank there.
            rank = max(1, round(given or 1))
            return ModuleWeights("lokr", tensors, rank, float(rank))
        decomposed = next(tensors[leaf] for leaf in ("lokr_w2_b", "lokr_w1_b") if leaf in tensors)
        rank = decomposed.shape[0]
        return ModuleWeights("lokr", tensors, rank, float(rank) if given is None else given)
    return None


def _magnitude(scale: Tensor, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """dora_scale as peft has it: [out] for a linear layer, [1, out, 1, 1] for a convolution."""
    out = tensors[UP].shape[0]
    if scale.shape[0] != out or scale.numel() != out:
        raise PilotError(
            f"{name}.dora_scale",
            f"shape {list(scale.shape)}: a norm of each input column",
            f"[{out}, 1]: a norm of each output row",
            "Train with wd_on_output, which is what peft and diffusers compute.",
        )
    return scale.reshape(1, out, 1, 1) if tensors[DOWN].dim() == 4 else scale.reshape(out)


def alpha_of(tensor: Tensor) -> float:
    """A stored alpha; of a 32-bit one the shortest number that rounds to it, so that 0.1 comes back as 0.1."""
    value = float(tensor)
    return rounded(value) if tensor.dtype == torch.float32 else value


def rounded(alpha: float) -> float:
    """The shortest number with the same 32-bit value: what both namings keep."""
    return float(str(np.float32(alpha)))
