"""What AI Toolkit calls things: its keys, families, optimizers and noise levels. Used both ways."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from trainpilot.dialects._keys import Key, table

ARCHITECTURES = {"flux": "flux", "sdxl": "sdxl", "sd15": "sd15", "sd1": "sd15", "sd2": "sd15", "sd3": "sd3"}
TRAINERS = ("sd_trainer", "ui_trainer", "diffusion_trainer")
TRANSFORMERS = ("flux", "sd3")
EPS = 1e-6  # AI Toolkit gives it to every Adam, whatever the file says
OPTIMIZERS = {
    "adam": "adamw", "adamw": "adamw", "adam8": "adamw8bit", "adamw8": "adamw8bit", "adam8bit": "adamw8bit",
    "adamw8bit": "adamw8bit", "lion": "lion", "lion8bit": "lion8bit", "adafactor": "adafactor",
    "prodigy": "prodigy", "prodigy8bit": "prodigy",
}  # fmt: skip
QUANTIZED = {"qfloat8": "fp8", "float8": "fp8", "int8": "int8", "uint4": "nf4", "uint8": "int8"}
LEVELS = {"sigmoid": "sigmoid", "linear": "uniform", "flux_shift": "flux_shift"}
SECTIONS = ("save", "logging", "network", "train", "model", "sample")
WARMUP = 1000.0  # steps of constant_with_warmup where its parameters say nothing


@cache
def keys() -> Mapping[str, Key]:
    """Every key of a job, under the name of its section."""
    return table(Path(__file__).with_name("keys.toml"))


def fate(name: str) -> str:
    """The list a key falls into when a file sets it to something of its own."""
    return keys()[name].fate
