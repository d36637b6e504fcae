"""How long a step takes, as an estimate: operations counted from the model, over what the device is good for.

The counts are each family's `speed.toml`; what a device is good for is `devices.toml` times a share that training
reaches, or what the caller measured. Nothing is timed here. Used by the plan.

How far off: a step of eight pictures on one core of an x86-64 server, estimated over measured (processor time, fp32,
rank 16), was 0.63 s over 0.23 s for pilot-tiny at 64 px (2.7 times too long), and 0.030 over 0.149, 0.051 over 0.149
and 0.060 over 0.193 s for the random miniatures of SD 1.5, SDXL and FLUX.1 at 32 px (a fifth to a third), whose layers
are so small that counting operations says little. The plan says so of miniatures. `benchmarks/train_step.py` measures
the full-size models on a GPU.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainpilot.families.card import FOLDER
from trainpilot.models.detect import Base

# Share of the data sheet's arithmetic that training reaches; FLUX and SDXL trainers on one card report 0.3 to 0.5.
REACHED = 0.4
# Host time of one operation in eager mode; a GPU waits for it where its own work is shorter.
HOST_SECONDS = 5e-6
CPU_HOST_SECONDS = 12e-6
CPU_TFLOPS_PER_CORE = 0.03
UNKNOWN_GPU_TFLOPS = 60.0


@dataclass(frozen=True)
class Device:
    """Where the run would happen. kind: "cuda" or "cpu"; memory in bytes, None where it is unknown."""

    kind: str
    name: str
    memory: int | None
    tflops: float
    source: str
    bf16: bool = True


@dataclass(frozen=True)
class Figures:
    """A family's counts, scaled to the base model at hand. TFLOP of a picture: linear * n + square * n^2, n tokens."""

    pixels_per_token: float
    text_tokens: int
    train: tuple[float, float]
    forward: tuple[float, float]
    operations: int
    activations_per_token: float  # bytes, bf16, without checkpointing
    checkpointed_share: float

    def tokens(self, width: int, height: int) -> float:
        return width * height / self.pixels_per_token + self.text_tokens

    def train_tflop(self, width: int, height: int, checkpointing: bool) -> float:
        """Forward and backward of one picture."""
        again = self.forward_tflop(width, height) if checkpointing else 0.0  # one more forward pass
        return _curve(self.train, self.tokens(width, height)) + again

    def forward_tflop(self, width: int, height: int) -> float:
        return _curve(self.forward, self.tokens(width, height))

    def activation_bytes(self, width: int, height: int, checkpointing: bool) -> float:
        """Kept between forward and backward for one picture, in bf16."""
        share = self.checkpointed_share if checkpointing else 1.0
        return self.activations_per_token * self.tokens(width, height) * share


def _curve(terms: tuple[float, float], tokens: float) -> float:
    return terms[0] * tokens + terms[1] * tokens**2


@cache
def _speed(family: str) -> dict[str, Any] | None:
    path = FOLDER / family / "speed.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def figures(family: str, base: Base, full_parameters: int, full_modules: int, full_factor: int) -> Figures | None:
    """The family's counts for this base model, or None where the family has none.

    A miniature does less work: its counts are scaled by its parameters and modules, and by its latents where
    its VAE is another.
    """
    given = _speed(family)
    if given is None:
        return None
    factor = base.latent_factor or full_factor
    scale = base.parameters.get("denoiser", full_parameters) / full_parameters if base.tiny else 1.0
    depth = len(base.shapes["denoiser"]) / full_modules if base.tiny and base.shapes else 1.0
    # A token stands for a square of latents, so a smaller VAE factor makes more tokens of the same picture.
    pixels = given["pixels_per_token"] * (factor / full_factor) ** 2
    small, large = given["sizes"]
    counts = [size["side"] ** 2 / given["pixels_per_token"] + given["text_tokens"] for size in (small, large)]
    reference = given["activations_at"] ** 2 / given["pixels_per_token"] + given["text_tokens"]
    return Figures(
        pixels_per_token=pixels,
        text_tokens=given["text_tokens"],
        train=_fit(counts, [small["train"] * scale, large["train"] * scale]),
        forward=_fit(counts, [small["forward"] * scale, large["forward"] * scale]),
        operations=round(given["operations"] * depth),
        # Activations go with a layer's width, parameters with its square.
        activations_per_token=given["activations_gb"] * 1e9 / reference * scale**0.5,
        checkpointed_share=given["checkpointed_share"],
    )


def _fit(counts: list[float], costs: list[float]) -> tuple[float, float]:
    """linear and square such that linear * n + square * n^2 meets both costs (attention is the square)."""
    (n, m), (a, b) = counts, costs
    square = (b / m - a / n) / (m - n)
    return a / n - square * n, square


def step_seconds(
    tflop: float, batches: int, figures: Figures, device: Device, checkpointing: bool, share: float = 1.0
) -> float:
    """`batches` passes that together compute `tflop`: arithmetic, or the host where that is slower.

    share: of the operations of a forward and backward pass that are done.
    """
    operations = figures.operations * batches * share * (4 / 3 if checkpointing else 1.0)
    work = tflop / device.tflops
    if device.kind == "cpu":
        return work + operations * CPU_HOST_SECONDS
    return max(work, operations * HOST_SECONDS)


def sample_seconds(width: int, height: int, steps: int, passes: int, figures: Figures, device: Device) -> float:
    """One picture sampled: forward passes only (passes: 2 with classifier-free guidance), decoding left out."""
    # A third of a step's operations belong to its forward pass.
    work = figures.forward_tflop(width, height) * passes
    return steps * step_seconds(work, 1, figures, device, checkpointing=False, share=1 / 3)


def known_tflops(name: str) -> float | None:
    """The data sheet's figure for a device's name."""
    rows = tomllib.loads((Path(__file__).parent / "devices.toml").read_text(encoding="utf-8"))["device"]
    return next((float(row["tflops"]) for row in rows if row["name"].lower() in name.lower()), None)


def device_here(environment: Mapping[str, str], tflops: float | None = None) -> Device:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves, asked through its driver, else this CPU."""
    import os

    import pynvml

    visible = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        visible = ""
    if visible not in ("", "-1"):
        try:
            handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(visible))
                if visible.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(visible)
            )
            name = str(pynvml.nvmlDeviceGetName(handle))
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
            major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            return gpu(name, memory, bf16=major >= 8, tflops=tflops)
        except pynvml.NVMLError:
            pass  # the driver knows no such device: plan for the CPU, and the plan names it
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    speed = tflops or cores * CPU_TFLOPS_PER_CORE
    source = "given" if tflops else f"{CPU_TFLOPS_PER_CORE} TFLOP/s a core"
    return Device("cpu", f"CPU, {cores} cores", None, speed, source, bf16=False)


def gpu(name: str, memory: int | None, *, bf16: bool = True, tflops: float | None = None) -> Device:
    """A GPU by name; tflops: what was measured on it, instead of the data sheet's figure."""
    if tflops:
        return Device("cuda", name, memory, tflops, "given", bf16)
    sheet = known_tflops(name)
    if sheet is None:
        return Device("cuda", name, memory, UNKNOWN_GPU_TFLOPS * REACHED, "an unknown GPU, guessed", bf16)
    return Device("cuda", name, memory, sheet * REACHED, f"{REACHED:.0%} of {sheet:g} TFLOP/s", bf16)
