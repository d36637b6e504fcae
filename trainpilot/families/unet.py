"""What Stable Diffusion's U-Net families share: loading, and where a single file has its parts. Used by sd15, sdxl."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainpilot.families import latents
from trainpilot.families.loading import Original, Source, vae_dtype
from trainpilot.families.protocol import Parts
from trainpilot.models.detect import Base

log = logging.getLogger(__name__)
PREFIX = "model.diffusion_model."


def from_ldm(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The original U-Net's tensors in diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    return convert_ldm_unet_checkpoint({PREFIX + name: tensor for name, tensor in tensors.items()}, config)


ORIGINALS = {"unet": Original((PREFIX, ""), from_ldm), "vae": latents.original("first_stage_model.")}


def load(
    source: Source,
    base: Base | None,
    wanted: frozenset[str],
    text: tuple[str, ...],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    vae: Path | None,
    prediction: str,
) -> Parts:
    """`Parts` of a U-Net family. base: what a single file was detected as. text: endings of its text encoders."""
    scheduler = source.config("scheduler")
    if prediction == "auto":
        prediction = base.prediction if base else scheduler.get("prediction_type", "epsilon")
    scheduler["prediction_type"] = prediction
    if base and source.has_tensor("ztsnr"):
        log.info("%s is marked ztsnr: its betas are rescaled to zero terminal SNR", base.path.name)
        scheduler["rescale_betas_zero_snr"] = True
    config = source.config("vae")
    parts = Parts(prediction=prediction, scheduler_config=scheduler, **latents.scale_of(config))
    if "text" in wanted:
        parts.text_encoders = [source.module("text_encoder" + ending, dtype, device) for ending in text]
        parts.tokenizers = [source.tokenizer("tokenizer" + ending) for ending in text]
    if "vae" in wanted and vae is not None:
        parts.vae = latents.replacement(vae, config, dtype, device)
    elif "vae" in wanted:
        parts.vae = source.module("vae", vae_dtype(config, dtype), device)
    if "denoiser" in wanted:
        parts.denoiser = source.module("unet", dtype, device)
    return parts


def of(parts: Parts) -> nn.Module:
    """The loaded denoiser."""
    if parts.denoiser is None:
        raise ValueError("the denoiser is not loaded; ask for it with wanted={'denoiser'}")
    return parts.denoiser
