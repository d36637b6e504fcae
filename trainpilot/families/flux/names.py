"""How FLUX.1 modules are named in LoRA files: the original model's blocks, joined. Strings only.

The original keeps query, key and value of an attention in one matrix, and in the single blocks the first MLP layer
with them; diffusers keeps them apart. Its last modulation holds shift and scale where diffusers has scale and shift.
"""

from __future__ import annotations

import re

from trainpilot.errors import PilotError
from trainpilot.formats.names import Place
from trainpilot.formats.words import CLIP, T5, clip_joined, clip_module, join, split

KOHYA = {"denoiser": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te3"}
PEFT = {"denoiser": "transformer", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2"}
ONE_ALPHA = False  # every reader of fused names multiplies each module's own alpha into its weights

_MLP_RATIO = 4
# joined name -> modules in row order
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_proj": ("attn.to_add_out",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
_TOP = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in_in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in_out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in_in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in_out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in_in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in_out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer_linear": ("proj_out",),
    "final_layer_adaLN_modulation_1": ("norm_out.linear",),
}
_SWAPPED = "norm_out.linear"
_BLOCKS = {"transformer_blocks": ("double_blocks", _DOUBLE), "single_transformer_blocks": ("single_blocks", _SINGLE)}
_MODULE = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.(.+)")
_ORIGINAL = re.compile(r"(double_blocks|single_blocks)_(\d+)_(.+)")


def place(component: str, module: str) -> Place:
    """Where a module goes: most are a matrix of their own, query, key, value (and proj_mlp) share one."""
    if component == "text_encoder":
        return Place(clip_joined(module), (module,))
    if component == "text_encoder_2":
        return Place(join(module), (module,))
    block = _MODULE.fullmatch(module)
    table = _BLOCKS[block[1]][1] if block else _TOP
    inner = block[3] if block else module
    found = next(((joined, parts) for joined, parts in table.items() if inner in parts), None)
    if found is None:
        raise PilotError("module name", module, "a module of the FLUX.1 transformer", "Check network.targets.")
    joined, parts = found
    if not block:
        return Place(joined, parts, swapped=module == _SWAPPED)
    return Place(f"{_BLOCKS[block[1]][0]}_{block[2]}_{joined}", tuple(f"{block[1]}.{block[2]}.{p}" for p in parts))


def modules(component: str, joined: str) -> tuple[str, ...]:
    """The modules of a joined name in row order; KeyError for an unknown name."""
    if component == "text_encoder":
        return (clip_module(joined, wrapped=False),)
    if component == "text_encoder_2":
        return (split(joined, (*CLIP, *T5)),)
    block = _ORIGINAL.fullmatch(joined)
    if not block:
        return _TOP[joined]
    blocks, table = next((name, table) for name, (own, table) in _BLOCKS.items() if own == block[1])
    return tuple(f"{blocks}.{block[2]}.{part}" for part in table[block[3]])


def rows(module: str, width: int) -> int:
    """Rows of one part of a fused matrix: as many as the input is wide, four times that for the MLP."""
    return _MLP_RATIO * width if module.endswith("proj_mlp") else width
