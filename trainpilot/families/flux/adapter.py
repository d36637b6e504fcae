"""FLUX.1 dev and schnell: T5 and CLIP's pooled vector, a transformer over packed latents, rectified flow.

x_s = (1 - s) x0 + s eps, target eps - x0, and s itself is the time that the model is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainpilot.config.schema import Loss, Noise
from trainpilot.families import clip_text, latents, miniature
from trainpilot.families.construction import configs
from trainpilot.families.distributions import bounds, place
from trainpilot.families.flux import original
from trainpilot.families.loading import Original, Source, vae_dtype
from trainpilot.families.protocol import Conditioning, Levels, Parts, TextOptions
from trainpilot.models.detect import detect

ORIGINALS = {
    "transformer": Original(("model.diffusion_model.", ""), original.transformer_names),
    "vae": latents.original("vae.", "first_stage_model."),
    "text_encoder": Original(("text_encoders.clip_l.transformer.",), clip_text.bare_names),
    "text_encoder_2": Original(("text_encoders.t5xxl.transformer.",), original.t5_names),
}


def pack(latent: Tensor) -> Tensor:
    """[B,C,h,w] -> [B, h/2 * w/2, 4C]: every 2x2 square of latents is one token."""
    batch, channels, height, width = latent.shape
    squares = latent.view(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack`, to latents of height x width."""
    batch, _, channels = tokens.shape
    squares = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def image_places(height: int, width: int, device: torch.device) -> Tensor:
    """[h/2 * w/2, 3] position of every token of latents of height x width: (0, row, column)."""
    rows, columns = torch.meshgrid(
        torch.arange(height // 2, device=device), torch.arange(width // 2, device=device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).float()


class Flux:
    """`Family` of FLUX.1. Conditioning: context [B,T,4096] of T5, pooled [B,768] of CLIP."""

    name = "flux"
    components: tuple[str, ...] = ("denoiser", "text_encoder", "text_encoder_2")
    pipeline = "diffusers.FluxPipeline"
    encode_images, decode_latents = staticmethod(latents.encode), staticmethod(latents.decode)

    def originals(self, variant: str) -> dict[str, Original]:
        return ORIGINALS

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
        variant = detect(path).variant if path.is_file() else None
        source = Source(path, configs(self.name, variant), ORIGINALS)
        config = source.config("vae")
        scheduler = source.config("scheduler")
        parts = Parts(prediction="flow", scheduler_config=scheduler, **latents.scale_of(config))
        if "text" in wanted:
            names = ("text_encoder", "text_encoder_2")
            parts.text_encoders = [source.module(name, dtype, device) for name in names]
            parts.tokenizers = [source.tokenizer(name.replace("text_encoder", "tokenizer")) for name in names]
        if "vae" in wanted and vae is not None:
            parts.vae = latents.replacement(vae, config, dtype, device)
        elif "vae" in wanted:
            parts.vae = source.module("vae", vae_dtype(config, dtype), device)
        if "denoiser" in wanted:
            parts.denoiser = source.module("transformer", dtype, device)
        return parts

    def encode_text(self, parts: Parts, captions: Sequence[str], options: TextOptions) -> Conditioning:
        clip, t5 = parts.text_encoders
        pooled = clip_text.encode(
            clip, parts.tokenizers[0], captions, tokens=clip_text.CHUNK, layer=1, normalise=True
        ).pooled
        ids = parts.tokenizers[1](
            list(captions), padding="max_length", max_length=options.t5_tokens, truncation=True, return_tensors="pt"
        ).input_ids
        # no attention mask: FLUX was trained with the padding visible
        context = t5(input_ids=ids.to(next(t5.parameters()).device)).last_hidden_state
        return {"context": context, "pooled": pooled}

    def levels(self, parts: Parts, u: Tensor, noise: Noise, latent_size: tuple[int, int]) -> Levels:
        low, high = bounds(noise)
        tokens = (latent_size[0] // 2) * (latent_size[1] // 2)
        sigma = low / 1000 + place(u, noise, tokens, "sigmoid") * ((high - low) / 1000)
        return Levels(time=sigma, alpha=1 - sigma, sigma=sigma)

    def target(self, parts: Parts, x0: Tensor, eps: Tensor, levels: Levels) -> Tensor:
        return eps - x0

    def predict(
        self, parts: Parts, x_t: Tensor, levels: Levels, conditioning: Conditioning, sizes: Tensor, noise: Noise
    ) -> Tensor:
        denoiser: Any = parts.denoiser
        if denoiser is None:
            raise ValueError("the denoiser is not loaded; ask for it with wanted={'denoiser'}")
        height, width = x_t.shape[-2:]
        context = conditioning["context"]
        guidance = torch.full_like(levels.sigma, noise.guidance) if denoiser.config.guidance_embeds else None
        tokens = denoiser(
            hidden_states=pack(x_t),
            timestep=levels.time,
            guidance=guidance,
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=context,
            txt_ids=torch.zeros(context.shape[1], 3, device=x_t.device),
            img_ids=image_places(height, width, x_t.device),
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def loss_weights(self, parts: Parts, levels: Levels, loss: Loss) -> Tensor:
        return torch.ones_like(levels.sigma)

    def tiny(self, folder: Path, seed: int = 0) -> Path:
        tokenizers = {"tokenizer": miniature.clip_tokenizer(), "tokenizer_2": miniature.t5_tokenizer()}
        transformer = {
            "patch_size": 1,
            "in_channels": 16,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "guidance_embeds": True,
            "axes_dims_rope": [4, 4, 8],
        }
        unquantised = {"use_quant_conv": False, "use_post_quant_conv": False}
        components = {
            "transformer": {"class": "diffusers.FluxTransformer2DModel", "config": transformer},
            "vae": miniature.vae_config(4, scaling_factor=0.3611, shift_factor=0.1159, **unquantised),
            "text_encoder": miniature.clip_config(32, 3),
            "text_encoder_2": miniature.t5_config(32, len(tokenizers["tokenizer_2"])),
            "scheduler": configs(self.name)["scheduler"],
        }
        return miniature.write(folder, self.pipeline, components, tokenizers, seed)


FAMILY = Flux()
