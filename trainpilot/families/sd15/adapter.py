"""Stable Diffusion 1.x and 2.x: one CLIP, a U-Net, noise or v as target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainpilot.config.schema import Noise
from trainpilot.families import clip_text, discrete, latents, miniature, unet
from trainpilot.families.construction import configs
from trainpilot.families.loading import Original, Source
from trainpilot.families.protocol import Conditioning, Levels, Parts, TextOptions
from trainpilot.models.detect import detect


class StableDiffusion:
    """`Family` of SD 1.x and 2.x. Conditioning: context [B,T,768 or 1024]."""

    name = "sd15"
    components: tuple[str, ...] = ("denoiser", "text_encoder")
    pipeline = "diffusers.StableDiffusionPipeline"
    encode_images, decode_latents = staticmethod(latents.encode), staticmethod(latents.decode)
    levels, target = staticmethod(discrete.levels), staticmethod(discrete.target)
    loss_weights = staticmethod(discrete.loss_weights)

    def originals(self, variant: str) -> dict[str, Original]:
        text = {
            "1": Original(("cond_stage_model.transformer.",), clip_text.bare_names),
            "2": Original(("cond_stage_model.model.",), clip_text.open_clip_names),
        }
        return {"text_encoder": text[variant], **unet.ORIGINALS}

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
        base = detect(path) if path.is_file() else None
        variant = base.variant if base else "1"
        source = Source(path, configs(self.name, variant), self.originals(variant))
        return unet.load(source, base, wanted, ("",), dtype=dtype, device=device, vae=vae, prediction=prediction)

    def encode_text(self, parts: Parts, captions: Sequence[str], options: TextOptions) -> Conditioning:
        output = clip_text.encode(
            parts.text_encoders[0],
            parts.tokenizers[0],
            captions,
            tokens=options.clip_tokens,
            layer=options.clip_skip,
            normalise=True,
        )
        return {"context": output.hidden}

    def predict(
        self, parts: Parts, x_t: Tensor, levels: Levels, conditioning: Conditioning, sizes: Tensor, noise: Noise
    ) -> Tensor:
        denoiser = unet.of(parts)
        return denoiser(x_t, levels.time, encoder_hidden_states=conditioning["context"], return_dict=False)[0]

    def tiny(self, folder: Path, seed: int = 0) -> Path:
        small = {
            "block_out_channels": [32, 64],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
        }
        components = {
            "unet": miniature.unet_config(**small),
            "vae": miniature.vae_config(4, scaling_factor=0.18215),
            "text_encoder": miniature.clip_config(32, 3),
            "scheduler": configs(self.name)["scheduler"],
        }
        tokenizers = {"tokenizer": miniature.clip_tokenizer()}
        return miniature.write(folder, self.pipeline, components, tokenizers, seed)


FAMILY = StableDiffusion()
