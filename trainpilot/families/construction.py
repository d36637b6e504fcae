"""Empty and random modules from component configurations: full-size, on meta, or tiny. Used by the families.

A component configuration is {"class": "diffusers.AutoencoderKL", "config": {...}}; `configs.json` of a family has one
for each component of the full-size model, by diffusers' folder names; `configs-<variant>.json` those of a variant.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

FOLDER = Path(__file__).parent
Configs = dict[str, dict[str, Any]]


def configs(family: str, variant: str | None = None) -> Configs:
    """Component configurations of the full-size model."""
    own = FOLDER / family / f"configs-{variant}.json"
    path = own if variant and own.is_file() else FOLDER / family / "configs.json"
    return json.loads(path.read_text(encoding="utf-8"))


def class_of(name: str) -> Any:
    """ "diffusers.UNet2DConditionModel" -> the class."""
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(package), attribute)


def instance(kind: Any, config: dict[str, Any]) -> nn.Module:
    """A module of a class: transformers' models take a configuration object, diffusers' models its fields."""
    return kind(kind.config_class(**config)) if hasattr(kind, "config_class") else kind(**config)


def build(component: dict[str, Any]) -> nn.Module:
    """The module, randomly initialised on torch's current default device, in evaluation mode."""
    return instance(class_of(component["class"]), component["config"]).eval()


def build_on_meta(component: dict[str, Any]) -> nn.Module:
    """The module's shapes without its memory."""
    with torch.device("meta"):
        return build(component)
