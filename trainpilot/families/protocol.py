"""What the engine asks of a model family. Families share functions, never a base class.

Shapes: B samples, C latent channels, h x w latent size, T text tokens. Latents are normalised (shift and scale
applied) unless they are called moments. Used by the engine; implemented by families/*/adapter.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trainpilot.config.schema import Loss, Noise
from trainpilot.families.loading import Original

Conditioning = dict[str, Tensor]  # "context" [B,T,D], and "pooled" [B,D] where the family has one


@dataclass
class Parts:
    """The loaded pieces of a base model; a piece that is not needed is None or an empty list."""

    prediction: str  # "epsilon", "v_prediction" or "flow"
    latent_shift: float
    latent_scale: float
    latent_factor: int  # pixels per latent side
    scheduler_config: dict[str, Any]
    denoiser: nn.Module | None = None
    vae: nn.Module | None = None
    text_encoders: list[nn.Module] = field(default_factory=list)
    tokenizers: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class TextOptions:
    """How captions are read: `text_encoder` of the configuration, resolved."""

    clip_skip: int = 1
    clip_tokens: int = 75
    t5_tokens: int = 512


@dataclass(frozen=True)
class Levels:
    """Noise levels of a batch.

    time: [B] what the model is told (0..999 as int64, or sigma in 0..1 as float32).
    alpha, sigma: [B] float32, the shares of clean latent and noise: x_t = alpha * x0 + sigma * eps.
    """

    time: Tensor
    alpha: Tensor
    sigma: Tensor


class Family(Protocol):
    """One model family. Every tensor method is pure: no state, no random draw of its own."""

    name: str
    pipeline: str  # the diffusers pipeline that loads a base of this family, "diffusers.FluxPipeline"
    components: tuple[str, ...]  # ("denoiser", "text_encoder", ...) in the order of Parts.text_encoders

    def originals(self, variant: str) -> dict[str, Original]:
        """Where a single file of a variant has the components, by diffusers' folder names."""
        ...

    def load(
        self,
        path: Path,
        wanted: frozenset[str],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        vae: Path | None = None,
        prediction: str = "auto",
    ) -> Parts:
        """Load the wanted pieces ("text", "vae", "denoiser") from a diffusers folder or a single file."""
        ...

    def encode_text(self, parts: Parts, captions: Sequence[str], options: TextOptions) -> Conditioning:
        """Captions -> conditioning, batch first. Differentiable, for training text encoders."""
        ...

    def encode_images(self, parts: Parts, pixels: Tensor) -> Tensor:
        """[B,3,H,W] in -1..1 -> moments [B,2C,h,w]: mean and log-variance, not normalised."""
        ...

    def decode_latents(self, parts: Parts, latents: Tensor) -> Tensor:
        """Normalised latents [B,C,h,w] -> pixels [B,3,H,W] in -1..1."""
        ...

    def levels(self, parts: Parts, u: Tensor, noise: Noise, latent_size: tuple[int, int]) -> Levels:
        """Uniform draws u [B] in 0..1 -> noise levels by the configured distribution, within min..max timestep."""
        ...

    def target(self, parts: Parts, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
        """What the prediction is compared with; same shape as x0."""
        ...

    def predict(
        self, parts: Parts, x_t: Tensor, levels: Levels, conditioning: Conditioning, sizes: Tensor, noise: Noise
    ) -> Tensor:
        """One forward pass of the denoiser, [B,C,h,w]. sizes [B,6]: original h,w; crop top,left; target h,w."""
        ...

    def loss_weights(self, parts: Parts, levels: Levels, loss: Loss) -> Tensor:
        """[B] weights of the per-sample losses (min-SNR, debiased, ...)."""
        ...

    def tiny(self, folder: Path, seed: int = 0) -> Path:
        """Write a random model of this architecture in miniature, in diffusers layout, and return its folder."""
        ...
