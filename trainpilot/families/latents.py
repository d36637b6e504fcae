"""Pictures to latents and back, and the scale of latents. Shared by families with an AutoencoderKL."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainpilot.errors import PilotError
from trainpilot.families.construction import class_of
from trainpilot.families.loading import Original, assemble, from_folder, read_tensors, readable, vae_dtype
from trainpilot.families.protocol import Parts

PREFIXES = ("first_stage_model.", "vae.", "")


def from_ldm(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The original VAE's tensors in diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    if any(name.startswith("decoder.mid_block.") for name in tensors):
        return tensors
    return convert_ldm_vae_checkpoint(tensors, config)


def original(*prefixes: str) -> Original:
    """Where a single file has its VAE."""
    return Original(prefixes, from_ldm)


def scale_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """latent_shift, latent_scale, latent_factor of `Parts` from the VAE's configuration."""
    return {
        "latent_shift": float(config.get("shift_factor") or 0.0),
        "latent_scale": float(config.get("scaling_factor", 0.18215)),
        "latent_factor": 2 ** (len(config["block_out_channels"]) - 1),
    }


def replacement(path: Path, config: dict[str, Any], dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """Another VAE for the same latents: its folder, a pipeline's folder, or a .safetensors file in either naming.

    config: the configuration of the VAE that it replaces, used for a file.
    """
    kind = class_of("diffusers.AutoencoderKL")
    vae: Any
    with readable(path):
        if path.is_dir():
            folder = path / "vae" if (path / "vae").is_dir() else path
            vae = from_folder(folder, kind, vae_dtype(config, dtype))
        else:
            tensors = read_tensors(path, PREFIXES)
            vae = assemble(kind, config, from_ldm(tensors, config), vae_dtype(config, dtype), path)
    given, wanted = vae.config.latent_channels, config.get("latent_channels", 4)
    if given != wanted:
        raise PilotError(
            "model.vae", f"{given} latent channels", f"{wanted}, as the base has", "Use a VAE of this family."
        )
    return vae.to(device).eval().requires_grad_(False)


def encode(parts: Parts, pixels: Tensor) -> Tensor:
    """[B,3,H,W] in -1..1 -> moments [B,2C,h,w] in float32. Autocast is off: it would undo the VAE's number format."""
    vae = _vae(parts)
    with torch.autocast(pixels.device.type, enabled=False):
        parameters = vae.encode(pixels.to(vae.dtype)).latent_dist.parameters
    return parameters.float()


def decode(parts: Parts, latents: Tensor) -> Tensor:
    """Normalised latents [B,C,h,w] -> pixels [B,3,H,W] in -1..1, float32."""
    vae = _vae(parts)
    with torch.autocast(latents.device.type, enabled=False):
        moved = latents.float() / parts.latent_scale + parts.latent_shift
        return vae.decode(moved.to(vae.dtype)).sample.float().clamp(-1, 1)


def _vae(parts: Parts) -> Any:
    if parts.vae is None:
        raise ValueError("the VAE is not loaded; ask for it with wanted={'vae'}")
    return parts.vae
