"""Stable Diffusion XL: two CLIPs read at the layer before the last, a U-Net that is told the picture's sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainpilot.config.schema import Noise
from trainpilot.families import clip_text, discrete, latents, miniature, unet
from trainpilot.families.construction import configs
from trainpilot.families.loading import Original, Source
from trainpilot.families.protocol import Conditioning, Levels, Parts, TextOptions
from trainpilot.models.detect import detect

PENULTIMATE = 2  # the layer SDXL was trained on, counted from the last


def _second_clip(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    return clip_text.open_clip_names(tensors, config, prefix="text_model.")


ORIGINALS = {
    "text_encoder": Original(("conditioner.embedders.0.transformer.",), clip_text.bare_names),
    "text_encoder_2": Original(("conditioner.embedders.1.model.",), _second_clip),
    **unet.ORIGINALS,
}


class StableDiffusionXL:
    """`Family` of SDXL. Conditioning: context [B,T,2048], pooled [B,1280]."""

    name = "sdxl"
    components: tuple[str, ...] = ("denoiser", "text_encoder", "text_encoder_2")
    pipeline = "diffusers.StableDiffusionXLPipeline"
    encode_images, decode_latents = staticmethod(latents.encode), staticmethod(latents.decode)
    levels, target = staticmethod(discrete.levels), staticmethod(discrete.target)
    loss_weights = staticmethod(discrete.loss_weights)

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
        source = Source(path, configs(self.name), ORIGINALS)
        base = detect(path) if path.is_file() else None
        return unet.load(source, base, wanted, ("", "_2"), dtype=dtype, device=device, vae=vae, prediction=prediction)

    def encode_text(self, parts: Parts, captions: Sequence[str], options: TextOptions) -> Conditioning:
        first, second = (
            clip_text.encode(
                encoder, tokenizer, captions, tokens=options.clip_tokens, layer=PENULTIMATE, normalise=False
            )
            for encoder, tokenizer in zip(parts.text_encoders, parts.tokenizers, strict=True)
        )
        return {"context": torch.cat([first.hidden, second.hidden], dim=-1), "pooled": second.pooled}

    def predict(
        self, parts: Parts, x_t: Tensor, levels: Levels, conditioning: Conditioning, sizes: Tensor, noise: Noise
    ) -> Tensor:
        denoiser = unet.of(parts)
        added = {"text_embeds": conditioning["pooled"], "time_ids": sizes.to(conditioning["pooled"].dtype)}
        return denoiser(
            x_t,
            levels.time,
            encoder_hidden_states=conditioning["context"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]

    def tiny(self, folder: Path, seed: int = 0) -> Path:
        small = {
            "block_out_channels": [16, 32, 32],
            # the original's names, in which files name modules, count three entries a level
            "layers_per_block": 2,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 1, 2],
            "attention_head_dim": [2, 4, 4],
            "cross_attention_dim": 64,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 32,
        }
        components = {
            "unet": miniature.unet_config(**small),
            "vae": miniature.vae_config(4, scaling_factor=0.13025),
            "text_encoder": miniature.clip_config(32, 3),
            "text_encoder_2": miniature.clip_config(32, 3, projected=True, act="gelu"),
            "scheduler": configs(self.name)["scheduler"],
        }
        tokenizers = {"tokenizer": miniature.clip_tokenizer(), "tokenizer_2": miniature.clip_tokenizer()}
        return miniature.write(folder, self.pipeline, components, tokenizers, seed)


FAMILY = StableDiffusionXL()
