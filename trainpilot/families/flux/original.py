"""FLUX.1's original tensor names (Black Forest Labs' layout) to diffusers' and transformers'. Used by the adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
EMBEDDERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
DOUBLE_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
SINGLE = {"modulation.lin": "norm.linear", "linear2": "proj_out"}
SINGLE_NORMS = {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}
SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


def transformer_names(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """The transformer in diffusers' names; tensors that already have them are returned as they are."""
    if any(name.startswith("transformer_blocks.") for name in tensors):
        return tensors
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        for ours, part in _renamed(name, tensor, inner):
            renamed[ours] = part
    return renamed


def _renamed(name: str, tensor: Tensor, inner: int) -> Iterator[tuple[str, Tensor]]:
    module, _, leaf = name.rpartition(".")
    if module in EMBEDDERS:
        yield f"{EMBEDDERS[module]}.{leaf}", tensor
    elif module == "final_layer.adaLN_modulation.1":
        # the original has shift before scale, diffusers scale before shift
        shift, scale = tensor.chunk(2)
        yield f"norm_out.linear.{leaf}", torch.cat([scale, shift])
    elif module.startswith(("double_blocks.", "single_blocks.")):
        kind, number, rest = module.split(".", 2)
        double = kind == "double_blocks"
        block = f"{'' if double else 'single_'}transformer_blocks.{number}"
        plain, norms, fused = (DOUBLE, DOUBLE_NORMS, DOUBLE_FUSED) if double else (SINGLE, SINGLE_NORMS, SINGLE_FUSED)
        if rest in plain:
            yield f"{block}.{plain[rest]}.{leaf}", tensor
        elif rest in norms:
            yield f"{block}.{norms[rest]}.weight", tensor
        elif rest in fused:
            sizes = [inner, inner, inner, tensor.shape[0] - 3 * inner][: len(fused[rest])]
            for part, split in zip(fused[rest], tensor.split(sizes), strict=True):
                yield f"{block}.{part}.{leaf}", split


def t5_names(tensors: Tensors, config: dict[str, Any]) -> Tensors:
    """T5's encoder; its embedding has two names in transformers, of which files often have one."""
    if "shared.weight" in tensors and "encoder.embed_tokens.weight" not in tensors:
        return {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]}
    return tensors
