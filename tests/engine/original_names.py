"""Tiny models written as the single files people download: the original (LDM, OpenCLIP, BFL) tensor names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainpilot.families.flux import original as bfl

Tensors = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def weights(folder: Path) -> Tensors:
    """All tensors of a component's folder."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def unet(tensors: Tensors) -> Tensors:
    """LDM numbers blocks through: one for each resnet (with its attention) and each downsampling."""
    renamed = {}
    layers = len({name.split(".")[3] for name in tensors if name.startswith("down_blocks.0.resnets.")})
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module in TOP:
            renamed[f"{TOP[module]}.{leaf}"] = tensor
            continue
        kind, *rest = re.match(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.?(.*)", module).groups()
        block, part, number = int(rest[0] or 0), rest[1], int(rest[2])
        inner = RESNET.get(rest[3], rest[3]) if part == "resnets" else rest[3]
        if kind == "mid":
            place = f"middle_block.{1 if part == 'attentions' else 2 * number}"
        elif kind == "down":
            first = 1 + block * (layers + 1)
            place = f"input_blocks.{first + number}.{int(part == 'attentions')}"
            if part == "downsamplers":
                place, inner = f"input_blocks.{first + layers}.0", "op"
        else:
            first = block * (layers + 1)
            place = f"output_blocks.{first + number}.{int(part == 'attentions')}"
            if part == "upsamplers":
                attended = any(n.startswith(f"up_blocks.{block}.attentions") for n in tensors)
                place, inner = f"output_blocks.{first + layers}.{1 + attended}", "conv"
        renamed[f"{place}.{inner}.{leaf}"] = tensor
    assert len(renamed) == len(tensors)
    return renamed


def vae(tensors: Tensors, levels: int) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{1 + int(m[1])}", name)
        if "mid_block.attentions.0." in name:
            name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
            for ours, theirs in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v"}.items():
                name = name.replace(f".{ours}.", f".{theirs}.")
            name = name.replace(".to_out.0.", ".proj_out.")
            if tensor.dim() == 2:
                tensor = tensor[..., None, None]
        renamed[name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")] = tensor
    return renamed


def open_clip(tensors: Tensors, layers: int) -> Tensors:
    """transformers' CLIP text tower as OpenCLIP names it: q, k and v in one, projection transposed."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    renamed = {
        "token_embedding.weight": bare["embeddings.token_embedding.weight"],
        "positional_embedding": bare["embeddings.position_embedding.weight"],
        "ln_final.weight": bare["final_layer_norm.weight"],
        "ln_final.bias": bare["final_layer_norm.bias"],
        "logit_scale": torch.ones(()),
    }
    if "text_projection.weight" in bare:
        renamed["text_projection"] = bare["text_projection.weight"].T
    for layer in range(layers):
        ours, theirs = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            qkv = [bare[f"{ours}self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            renamed[f"{theirs}attn.in_proj_{leaf}"] = torch.cat(qkv)
            for a, b in {
                "layer_norm1": "ln_1",
                "layer_norm2": "ln_2",
                "self_attn.out_proj": "attn.out_proj",
                "mlp.fc1": "mlp.c_fc",
                "mlp.fc2": "mlp.c_proj",
            }.items():
                renamed[f"{theirs}{b}.{leaf}"] = bare[f"{ours}{a}.{leaf}"]
    return renamed


def flux(tensors: Tensors) -> Tensors:
    renamed: Tensors = {}
    for table in (bfl.EMBEDDERS,):
        for theirs, ours in table.items():
            for leaf in ("weight", "bias"):
                renamed[f"{theirs}.{leaf}"] = tensors[f"{ours}.{leaf}"]
    for leaf in ("weight", "bias"):
        scale, shift = tensors[f"norm_out.linear.{leaf}"].chunk(2)
        renamed[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    for prefix, target in (("transformer_blocks", "double_blocks"), ("single_transformer_blocks", "single_blocks")):
        double = target == "double_blocks"
        for number in sorted({n.split(".")[1] for n in tensors if n.startswith(prefix + ".")}):
            for leaf in ("weight", "bias"):
                for theirs, ours in (bfl.DOUBLE if double else bfl.SINGLE).items():
                    renamed[f"{target}.{number}.{theirs}.{leaf}"] = tensors[f"{prefix}.{number}.{ours}.{leaf}"]
                for theirs, parts in (bfl.DOUBLE_FUSED if double else bfl.SINGLE_FUSED).items():
                    fused = torch.cat([tensors[f"{prefix}.{number}.{part}.{leaf}"] for part in parts])
                    renamed[f"{target}.{number}.{theirs}.{leaf}"] = fused
            for theirs, ours in (bfl.DOUBLE_NORMS if double else bfl.SINGLE_NORMS).items():
                renamed[f"{target}.{number}.{theirs}.scale"] = tensors[f"{prefix}.{number}.{ours}.weight"]
    return renamed


def single_file(family: str, folder: Path, target: Path) -> Path:
    """The tiny model of a folder as one file, with its configurations and tokenizers in `<name>.parts/` beside it."""
    parts: dict[str, Tensors] = {}
    if family == "flux":
        parts["model.diffusion_model."] = flux(weights(folder / "transformer"))
        parts["vae."] = vae(weights(folder / "vae"), 2)
        clip = weights(folder / "text_encoder")
        parts["text_encoders.clip_l.transformer.text_model."] = bare(clip)
        t5 = weights(folder / "text_encoder_2")
        parts["text_encoders.t5xxl.transformer."] = {n: t for n, t in t5.items() if "embed_tokens" not in n}
    else:
        parts["model.diffusion_model."] = unet(weights(folder / "unet"))
        parts["first_stage_model."] = vae(weights(folder / "vae"), 2)
        first = bare(weights(folder / "text_encoder"))
        if family == "sd15":
            parts["cond_stage_model.transformer.text_model."] = first
        else:
            parts["conditioner.embedders.0.transformer.text_model."] = first
            parts["conditioner.embedders.1.model."] = open_clip(weights(folder / "text_encoder_2"), 3)
    save_file({p + n: t.contiguous().clone() for p, given in parts.items() for n, t in given.items()}, target)
    beside = target.with_suffix(".parts")
    for source in folder.glob("*/*.json"):
        (beside / source.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, beside / source.parent.name / source.name)
    assert json.loads((beside / "vae" / "config.json").read_text())
    return target


def bare(tensors: Tensors) -> Tensors:
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
