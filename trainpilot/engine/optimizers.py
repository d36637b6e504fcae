"""Optimizers and the course of their rates, from their libraries. Used by the trainer.

Adding an optimizer is adding a function here and its name to the schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch.optim import Optimizer

from trainpilot.config.schema import Optimizer as Settings
from trainpilot.config.schema import RunConfig
from trainpilot.engine.adapters import Adapter
from trainpilot.errors import PilotError

Groups = list[dict[str, Any]]


def _betas(s: Settings) -> dict[str, Any]:
    return {"betas": (s.beta1, s.beta2), "weight_decay": s.weight_decay}


def _adamw(groups: Groups, s: Settings) -> Optimizer:
    fused = all(p.device.type == "cuda" for group in groups for p in group["params"])
    # fused (one kernel for all) exists on CPU too, but there foreach is as fast and bit-identical over builds.
    options: dict[str, Any] = {"fused": fused or None, **_betas(s), **s.args}
    return torch.optim.AdamW(groups, lr=s.learning_rate, eps=s.eps, **options)


def _adamw8bit(groups: Groups, s: Settings) -> Optimizer:
    import bitsandbytes as bnb

    return bnb.optim.AdamW8bit(groups, lr=s.learning_rate, eps=s.eps, **_betas(s), **s.args)


def _lion(groups: Groups, s: Settings) -> Optimizer:
    from lion_pytorch import Lion

    return Lion(groups, lr=s.learning_rate, **_betas(s), **s.args)


def _lion8bit(groups: Groups, s: Settings) -> Optimizer:
    import bitsandbytes as bnb

    return bnb.optim.Lion8bit(groups, lr=s.learning_rate, **_betas(s), **s.args)


def _adafactor(groups: Groups, s: Settings) -> Optimizer:
    from transformers.optimization import Adafactor

    # relative_step is on by default there and discards every configured rate: off, and refused when asked for.
    if s.args.get("relative_step"):
        raise PilotError(
            "optimizer.args.relative_step",
            "true",
            "false",
            "Take optimizer.name = prodigy for a rate that finds itself.",
        )
    options = {
        "relative_step": False,
        "scale_parameter": False,
        "warmup_init": False,
        "beta1": s.beta1 or None,
    } | s.args
    return Adafactor(groups, lr=s.learning_rate, weight_decay=s.weight_decay, **options)


def _prodigy(groups: Groups, s: Settings) -> Optimizer:
    from prodigyopt import Prodigy

    options = {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True} | s.args
    return Prodigy(groups, lr=s.learning_rate, eps=s.eps, **_betas(s), **options)


def _schedulefree(groups: Groups, s: Settings) -> Optimizer:
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(groups, lr=s.learning_rate, eps=s.eps, **_betas(s), **s.args)
    optimizer.train()
    return optimizer


_BUILDERS: dict[str, Callable[[Groups, Settings], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "lion": _lion,
    "lion8bit": _lion8bit,
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "adamw_schedulefree": _schedulefree,
}


def _rates(config: RunConfig, components: Iterable[str]) -> dict[str, float]:
    text = config.text_encoder
    first = text.learning_rate if text.learning_rate is not None else config.optimizer.learning_rate
    second = text.learning_rate_2 if text.learning_rate_2 is not None else first
    known = {"denoiser": config.optimizer.learning_rate, "text_encoder": first, "text_encoder_2": second}
    return {component: known[component] for component in components}


def parameter_groups(config: RunConfig, adapter: Adapter) -> Groups:
    """One group a component, split in two by LoRA+ (the up weights learn `lora_plus_ratio` times as fast)."""
    ratio = config.optimizer.lora_plus_ratio
    groups: Groups = []
    for component, rate in _rates(config, adapter.models).items():
        named = list(adapter.named_parameters(component))
        up = [p for name, p in named if name.endswith(("lora_B.weight", "hada_w1_a", "hada_w2_a", "lokr_w2_b"))]
        rest = [p for p in (p for _, p in named) if all(p is not other for other in up)]
        if ratio == 1.0:
            groups.append({"params": [p for _, p in named], "lr": rate, "component": component})
        else:
            groups.append({"params": rest, "lr": rate, "component": component})
            groups.append({"params": up, "lr": rate * ratio, "component": component})
    return [group for group in groups if group["params"]]


def build(config: RunConfig, adapter: Adapter) -> Optimizer:
    """The configured optimizer over the adapter's parameters."""
    settings = config.optimizer
    try:
        return _BUILDERS[settings.name](parameter_groups(config, adapter), settings)
    except TypeError as error:
        raise PilotError(
            "optimizer.args", settings.args, f"arguments of {settings.name}", f"Correct or remove one: {error}."
        ) from error


def warmup_steps(config: RunConfig, steps: int) -> int:
    """Steps of warm-up; a value below 1 is a share of the run."""
    given = config.schedule.warmup_steps
    return round(given * steps) if given < 1 else int(given)


def schedule(config: RunConfig, optimizer: Optimizer, steps: int) -> Any:
    """The course of the rates over `steps` updates; Schedule-Free has a course of its own."""
    chosen = config.schedule
    name = chosen.name
    if config.optimizer.name == "adamw_schedulefree":
        name = "constant_with_warmup"
    return get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps(config, steps),
        num_training_steps=steps,
        num_cycles=chosen.cycles,
        power=chosen.power,
    )


def notes(config: RunConfig) -> list[str]:
    """What a person should know of this choice, each with its reason."""
    found: list[str] = []
    settings = config.optimizer
    if settings.name == "prodigy" and settings.learning_rate < 0.1:
        found.append(
            f"optimizer.learning_rate is {settings.learning_rate:g}: Prodigy finds the rate itself and multiplies it "
            "by this; 1 is its normal value"
        )
    if settings.name == "adamw_schedulefree" and config.schedule.name not in ("constant", "constant_with_warmup"):
        found.append(
            f"schedule.name {config.schedule.name} has no effect with Schedule-Free, which needs none: "
            "constant with the configured warm-up is used"
        )
    return found
