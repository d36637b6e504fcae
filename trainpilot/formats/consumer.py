"""The other side of a LoRA file: a fresh pipeline that loads it as a generation tool would. Used by `verify`.

diffusers loads what it understands; what it is known to drop goes to it in PEFT naming, and LoHa and LoKr, which it
does not read for these families, are put in with peft alone.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trainpilot.families.construction import class_of, configs, instance
from trainpilot.families.registry import adapter
from trainpilot.formats import kohya, peft, storage
from trainpilot.formats.identify import Identified
from trainpilot.formats.load import LoraFile

NAME = "verify"
_FULL_FLUX_WIDTH = 3072  # diffusers' reader of Kohya files knows the fused single blocks of the full-size model alone


def why_not_direct(found: Identified, file: LoraFile, denoiser: nn.Module) -> str:
    """Why diffusers cannot load this file as it is; empty where it can."""
    if found.naming == "peft":
        return ""
    if found.kind == "dora":
        return "diffusers drops dora_scale of Kohya files"
    text = [name for component, modules in file.state.items() if component != "denoiser" for name in modules]
    if found.family != "flux":
        # It tells the naming of the attention from this one layer, and drops the attention where it finds none.
        attention = any("self_attn" in name for name in text)
        lost = attention and not any(name.endswith("self_attn.out_proj") for name in text)
        return "diffusers drops a text encoder's attention of Kohya files without out_proj" if lost else ""
    modules = file.state.get("denoiser", {})
    if any(not name.startswith(("transformer_blocks.", "single_transformer_blocks.")) for name in modules):
        return "diffusers drops FLUX modules outside the blocks of Kohya files"
    fused = any(
        name.startswith("single_") and name.endswith((".to_q", ".to_k", ".to_v", "proj_mlp")) for name in modules
    )
    width = getattr(denoiser, "inner_dim", _FULL_FLUX_WIDTH)
    if fused and width != _FULL_FLUX_WIDTH:
        return (
            f"diffusers takes a fused single block of a Kohya file for {_FULL_FLUX_WIDTH} wide, this base has {width}"
        )
    return ""


def layers(model: nn.Module) -> dict[str, Any]:
    """module name -> the adapter layer that sits there."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def through_diffusers(pipeline: Any, path: Path, file: LoraFile, reason: str, *, widen: bool) -> list[str]:
    """Load a file into a pipeline with load_lora_weights; returns what diffusers complained about.

    reason: why it has to be converted to PEFT naming first (empty: it goes in as it is). widen: load it in fp32, so
    that what diffusers multiplies into the weights is not rounded to the saved format.
    """
    with tempfile.TemporaryDirectory() as folder, _complaints() as complaints:
        source = path
        if reason:
            source = Path(folder) / "peft.safetensors"
            dtype = torch.float32 if widen else _dtype(file)
            peft.write(source, file.family, file.state, {}, dtype)
        elif widen:
            source = Path(folder) / "widened.safetensors"
            tensors, metadata = storage.read(path)
            storage.write(source, {name: tensor.float() for name, tensor in tensors.items()}, metadata)
        pipeline.load_lora_weights(str(source), adapter_name=NAME)
    return complaints


def _dtype(file: LoraFile) -> torch.dtype:
    return next(t.dtype for modules in file.state.values() for w in modules.values() for t in w.tensors.values())


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Warnings of diffusers about keys that found no module or modules that found no key."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if any(word in text for word in ("unexpected keys", "missing keys", "Unsupported keys", "not compatible")):
                found.append(text)

    handler = Collector(logging.WARNING)
    logger = logging.getLogger("diffusers")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def through_peft(models: Mapping[str, nn.Module], file: LoraFile) -> list[str]:
    """Put a LoHa or LoKr file's modules in with peft; returns what did not fit."""
    wrong: list[str] = []
    for component, modules in file.state.items():
        if not modules:
            continue
        settings = peft.config(modules)
        config = (LoHaConfig if kohya.kind(modules) == "loha" else LoKrConfig)(**settings)
        inject_adapter_in_model(config, models[component], NAME, low_cpu_mem_usage=True)
        flat: dict[str, Tensor] = {
            f"{name}.{leaf}": tensor.float() for name, w in modules.items() for leaf, tensor in w.tensors.items()
        }
        result: Any = set_peft_model_state_dict(models[component], flat, NAME, low_cpu_mem_usage=True)
        wrong += [f"unexpected {key}" for key in result.unexpected_keys]
        wrong += [f"missing {key}" for key in result.missing_keys if f".{NAME}" in key]
    return wrong


def pipeline(family: str, models: Mapping[str, nn.Module]) -> Any:
    """A diffusers pipeline of these modules alone: denoiser and text encoders, enough to load a LoRA."""
    kind = class_of(adapter(family).pipeline)
    scheduler = configs(family)["scheduler"]
    given: dict[str, Any] = {name: None for name in ("vae", "tokenizer", "tokenizer_2") if _takes(kind, name)}
    given |= {name: models.get(name) for name in ("text_encoder", "text_encoder_2") if _takes(kind, name)}
    given |= {"safety_checker": None, "feature_extractor": None} if _takes(kind, "safety_checker") else {}
    given["unet" if _takes(kind, "unet") else "transformer"] = models["denoiser"]
    given["scheduler"] = class_of(scheduler["class"])(**scheduler["config"])
    if _takes(kind, "requires_safety_checker"):
        given["requires_safety_checker"] = False
    return kind(**given)


def _takes(kind: Any, name: str) -> bool:
    return name in kind.__init__.__code__.co_varnames


def hollow(
    family: str, variant: str | None, read_config: Callable[[str], dict[str, Any]], components: Mapping[str, str]
) -> dict[str, nn.Module]:
    """The base's modules in their full shapes without memory: component -> module. All weights are one and the same 0.

    read_config(folder name) -> configuration. Not the meta device, because peft and diffusers move an adapter to the
    device of its base, where it would lose its weights.
    """
    shipped = configs(family, variant)
    found: dict[str, nn.Module] = {}
    for component, folder in components.items():
        kind = class_of(shipped[folder]["class"])
        config = read_config(folder)
        with torch.device("meta"):
            model = kind.from_config(config) if hasattr(kind, "from_config") else instance(kind, config)
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                zeros = torch.zeros(()).expand(parameter.shape)
                module.register_parameter(name, nn.Parameter(zeros, requires_grad=False))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.zeros((), dtype=buffer.dtype).expand(buffer.shape))
        found[component] = model.eval()
    return found
