"""How Stable Diffusion XL modules are named in LoRA files: the original model's blocks, joined. Strings only.

The original counts blocks through: each diffusers level is three entries of input_blocks and of output_blocks, and
what a resnet or an embedding is made of has other names.
"""

from __future__ import annotations

import re

from trainpilot.errors import PilotError
from trainpilot.formats.names import Place
from trainpilot.formats.words import UNET, clip_joined, clip_module, join, split

KOHYA = {"denoiser": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
PEFT = {"denoiser": "unet", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2"}
# diffusers 0.42 finds a module's alpha for attention and text encoder layers only where all modules have the same one.
ONE_ALPHA = True

_PER_LEVEL = 3  # two resnets and a downsampler on the way in, three resnets on the way out
_RESNET = {
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
_TOP = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
}
_RESNET_BACK = {joined: module for module, joined in _RESNET.items()}
_TOP_BACK = {joined: module for module, joined in _TOP.items()}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_ORIGINAL = re.compile(r"(input|output)_blocks_(\d+)_(\d+)_(.+)")
_ORIGINAL_MIDDLE = re.compile(r"middle_block_([012])_(.+)")


def place(component: str, module: str) -> Place:
    """Every module is a matrix of its own."""
    joined = _unet(module) if component == "denoiser" else clip_joined(module)
    return Place(joined, (module,))


def modules(component: str, joined: str) -> tuple[str, ...]:
    """The one module of a joined name; diffusers' block names, which some trainers write, are understood too."""
    if component != "denoiser":
        return (clip_module(joined, wrapped=component == "text_encoder_2"),)
    return (_unet_back(joined),)


def rows(module: str, width: int) -> int:
    """No matrix of this family is fused."""
    raise KeyError(module)


def _unet(module: str) -> str:
    if module in _TOP:
        return _TOP[module]
    middle = _MIDDLE.fullmatch(module)
    if middle:
        kind, number, inner = middle.groups()
        if kind == "attentions":
            return f"middle_block_1_{join(inner)}"
        return f"middle_block_{2 * int(number)}_{_RESNET[inner]}"
    block = _BLOCK.fullmatch(module)
    if not block:
        raise PilotError("module name", module, "a module of the Stable Diffusion XL U-Net", "Check network.targets.")
    side, level, kind, number, inner = block.groups()
    first = _PER_LEVEL * int(level)
    if kind == "downsamplers":
        return f"input_blocks_{first + _PER_LEVEL}_0_op"
    if kind == "upsamplers":
        # every level of the XL U-Net that is upsampled has attention, which is entry 1
        return f"output_blocks_{first + _PER_LEVEL - 1}_2_conv"
    entry = (
        f"input_blocks_{1 + first + int(number)}" if side == "down_blocks" else f"output_blocks_{first + int(number)}"
    )
    return f"{entry}_1_{join(inner)}" if kind == "attentions" else f"{entry}_0_{_RESNET[inner]}"


def _unet_back(joined: str) -> str:
    if joined in _TOP_BACK:
        return _TOP_BACK[joined]
    middle = _ORIGINAL_MIDDLE.fullmatch(joined)
    if middle:
        entry, inner = int(middle[1]), middle[2]
        if entry == 1:
            return f"mid_block.attentions.0.{split(inner, UNET)}"
        return f"mid_block.resnets.{entry // 2}.{_RESNET_BACK[inner]}"
    block = _ORIGINAL.fullmatch(joined)
    if not block:
        return split(joined, UNET)
    side, entry, part, inner = block[1], int(block[2]), int(block[3]), block[4]
    level, number = divmod(entry - 1 if side == "input" else entry, _PER_LEVEL)
    blocks = "down_blocks" if side == "input" else "up_blocks"
    if side == "input" and inner == "op":
        return f"{blocks}.{level}.downsamplers.0.conv"
    if side == "output" and inner == "conv":
        return f"{blocks}.{level}.upsamplers.0.conv"
    if part == 0:
        return f"{blocks}.{level}.resnets.{number}.{_RESNET_BACK[inner]}"
    return f"{blocks}.{level}.attentions.{number}.{split(inner, UNET)}"
