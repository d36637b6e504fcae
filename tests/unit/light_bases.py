"""Base models for tests that must not import torch: true layouts and headers over zeros. Used by the unit tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SIZES = {"F16": 2, "BF16": 2, "F32": 4}


def write_safetensors(
    path: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "F16", metadata: Mapping[str, str] | None = None
) -> Path:
    """A valid file of zeros, written from the format's own description."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, shape in shapes.items():
        count = SIZES[dtype]
        for side in shape:
            count *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, reached + count]}
        reached += count
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + reached)  # sparse: full-size shapes cost no disk
    return path


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def sd_folder(folder: Path, width: int = 32, cross: int = 32, prediction: str = "epsilon", xl: bool = False) -> Path:
    """A Stable Diffusion folder in miniature: two U-Net levels, a VAE of factor 4, 16 latents a side (64 px)."""
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    unet = {"conv_in.weight": (width, 4, 3, 3), f"{block}.ff.net.2.weight": (width, 4 * width)}
    for attention, inner in (("attn1", width), ("attn2", cross)):
        unet |= {f"{block}.{attention}.{name}.weight": (width, inner) for name in ("to_k", "to_v")}
        unet |= {f"{block}.{attention}.{name}.weight": (width, width) for name in ("to_q", "to_out.0")}
    text = {f"text_model.encoder.layers.0.self_attn.{name}.weight": (cross, cross) for name in ("q_proj", "k_proj")}
    index: dict[str, Any] = {"_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"]}
    config = {"_class_name": "UNet2DConditionModel", "sample_size": 16, "block_out_channels": [width, 2 * width]}
    config |= {"cross_attention_dim": cross, "in_channels": 4, "addition_embed_type": "text_time" if xl else None}
    _json(folder / "unet" / "config.json", config)
    _json(folder / "vae" / "config.json", {"block_out_channels": [16, 32, 64], "latent_channels": 4})
    _json(folder / "scheduler" / "scheduler_config.json", {"prediction_type": prediction})
    write_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors", unet)
    write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", {"encoder.conv_in.weight": (16, 3, 3, 3)})
    write_safetensors(folder / "text_encoder" / "model.safetensors", text)
    if xl:
        index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
        write_safetensors(folder / "text_encoder_2" / "model.safetensors", text)
    _json(folder / "model_index.json", index)
    return folder


def flux_folder(folder: Path, guidance: bool = True) -> Path:
    """A FLUX folder in miniature."""
    names = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "to_add_out")
    shapes = {f"transformer_blocks.0.attn.{name}.weight": (32, 32) for name in names}
    _json(
        folder / "transformer" / "config.json", {"_class_name": "FluxTransformer2DModel", "guidance_embeds": guidance}
    )
    _json(folder / "vae" / "config.json", {"block_out_channels": [16, 16, 16, 16], "latent_channels": 16})
    write_safetensors(folder / "transformer" / "diffusion_pytorch_model.safetensors", shapes, "BF16")
    write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", {"encoder.conv_in.weight": (16, 3, 3, 3)})
    for name in ("text_encoder", "text_encoder_2"):
        write_safetensors(folder / name / "model.safetensors", {"x.q_proj.weight": (32, 32)}, "BF16")
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"]}
    _json(folder / "model_index.json", index | {"text_encoder_2": ["transformers", "T5EncoderModel"]})
    return folder


def single_file(path: Path, kind: str) -> Path:
    """Just the tensors that tell the kinds apart, at their full-size shapes: sd1, sd2, sdxl, dev, schnell."""
    prefix = "model.diffusion_model."
    if kind in ("dev", "schnell"):
        shapes: dict[str, Sequence[int]] = {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}
        if kind == "dev":
            shapes["guidance_in.in_layer.weight"] = (3072, 256)
        return write_safetensors(path, shapes, "BF16")
    width = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[kind]
    shapes = {
        f"{prefix}input_blocks.0.0.weight": (320, 4, 3, 3),
        f"{prefix}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
    }
    if kind == "sdxl":
        shapes[f"{prefix}label_emb.0.0.weight"] = (1280, 2816)
        shapes["conditioner.embedders.1.model.ln_final.weight"] = (1280,)
    return write_safetensors(path, shapes)
