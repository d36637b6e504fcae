"""Ranks by block: sd-scripts' lists of numbers and indices as patterns of module names. Used when reading.

Stable Diffusion counts its blocks along the original U-Net: 12 inputs, the middle, 12 outputs (SDXL: the time
embedding, 9, 3, 9 and the output). FLUX names kinds of layers, and which blocks are adapted at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from trainpilot.dialects.sd_scripts.arguments import Arguments

DOUBLE, SINGLE = 19, 38  # FLUX's blocks
_D, _S = r"^transformer_blocks\.\d+\.", r"^single_transformer_blocks\.\d+\."
# Argument -> the pattern of its layers, in diffusers' names.
LAYERS = {
    "img_attn_dim": _D + r"attn\.to_(q|k|v|out\.0)$",
    "txt_attn_dim": _D + r"attn\.(add_[qkv]_proj|to_add_out)$",
    "img_mlp_dim": _D + r"ff\.",
    "txt_mlp_dim": _D + r"ff_context\.",
    "img_mod_dim": _D + r"norm1\.linear$",
    "txt_mod_dim": _D + r"norm1_context\.linear$",
    "single_dim": _S + r"(attn\.|proj_mlp|proj_out)",
    "single_mod_dim": _S + r"norm\.linear$",
}
INDICES = {
    "train_double_block_indices": ("transformer_blocks", DOUBLE),
    "train_single_block_indices": ("single_transformer_blocks", SINGLE),
}
_WORDS = {"all": range(1000), "none": range(0), "": range(1000)}


def read(args: Arguments) -> None:
    """Book the block arguments; what they ask for becomes network.block_ranks, in order."""
    ranks: dict[str, int] = {}
    if args.family == "flux":
        _flux(args, ranks)
        args.idle("network_args.block_dims", "only Stable Diffusion's blocks are counted like that")
    else:
        for name in (*LAYERS, *INDICES, "train_blocks"):
            args.idle(f"network_args.{name}", "only FLUX reads it")
        _unet(args, ranks)
    if ranks:
        args.ledger.values["network.block_ranks"] = ranks


def _flux(args: Arguments, ranks: dict[str, int]) -> None:
    for name, pattern in LAYERS.items():
        argument = f"network_args.{name}"
        text = str(args.value(argument) or "").strip()
        if not text:
            args.idle(argument, "asks for nothing")
        elif not text.isdigit():
            args.wrong(argument, "a whole number; 0 leaves the layers out")
        else:
            ranks[pattern] = int(text)
            args.settle(
                argument, {}, "a pattern of network.block_ranks; query, key and value have adapters of their own"
            )
    for name, (blocks, count) in INDICES.items():
        argument = f"network_args.{name}"
        text = str(args.value(argument) or "all").strip()
        chosen = _indices(text)
        if chosen is None:
            args.wrong(argument, "all, none, or numbers such as 0-3,7")
            continue
        left_out = [number for number in range(count) if number not in chosen]
        if not left_out:
            args.idle(argument, "asks for nothing")
            continue
        ranks[rf"^{blocks}\.({'|'.join(map(str, left_out))})\."] = 0
        args.settle(argument, {}, "a pattern of network.block_ranks leaves the others out")
    which = str(args.value("network_args.train_blocks") or "all")
    other = {"single": r"^transformer_blocks\.", "double": r"^single_transformer_blocks\."}.get(which)
    if other:
        ranks[other] = 0
        args.settle("network_args.train_blocks", {}, "a pattern of network.block_ranks leaves the others out")
    elif which == "all":
        args.idle("network_args.train_blocks", "asks for nothing")
    else:
        args.wrong("network_args.train_blocks", "all, single, double")


def _indices(text: str) -> set[int] | None:
    if text in _WORDS:
        return set(_WORDS[text])
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or len(first) > 3 or len(last) > 3:
            return None
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _unet(args: Arguments, ranks: dict[str, int]) -> None:
    argument = "network_args.block_dims"
    text = str(args.value(argument) or "").strip().strip("\"'")
    if not text:
        args.idle(argument, "asks for nothing")
        return
    parts = [part.strip() for part in text.split(",")]
    patterns = sdxl_patterns() if len(parts) == 23 else sd_patterns()
    if len(parts) != len(patterns) or not all(part.isdigit() for part in parts):
        args.wrong(argument, "25 whole numbers (SDXL: 23)")
        return
    for pattern, part in zip(patterns, parts, strict=True):
        if pattern:
            ranks[pattern] = int(part)
    args.settle(argument, {}, "patterns of network.block_ranks; alpha / rank is the same in all")


def sd_patterns() -> list[str]:
    """The pattern of each of Stable Diffusion 1's 25 blocks; "" where a block holds nothing that is adapted."""
    return ["", *_down((2, 2, 2, 2)), "^mid_block", *_up((3, 3, 3, 3))]


def sdxl_patterns() -> list[str]:
    """The pattern of each of SDXL's 23 blocks: time embedding, 9 inputs, 3 of the middle, 9 outputs, the last."""
    middle = [r"^mid_block\.resnets\.0\.", r"^mid_block\.attentions\.0\.", r"^mid_block\.resnets\.1\."]
    return [r"^(time|add)_embedding\.", "", *_down((2, 2, 2)), *middle, *_up((3, 3, 3)), ""]


def _down(layers: Iterable[int]) -> list[str]:
    counts = list(layers)
    found = []
    for block, count in enumerate(counts):
        found += [rf"^down_blocks\.{block}\.(resnets|attentions)\.{layer}\." for layer in range(count)]
        if block + 1 < len(counts):
            found.append(rf"^down_blocks\.{block}\.downsamplers\.")
    return found


def _up(layers: Iterable[int]) -> list[str]:
    counts = list(layers)
    found = []
    for block, count in enumerate(counts):
        last = block + 1 == len(counts)
        for layer in range(count):
            rest = "" if last or layer + 1 < count else rf"|^up_blocks\.{block}\.upsamplers\."
            found.append(rf"^up_blocks\.{block}\.(resnets|attentions)\.{layer}\.{rest}")
    return found
