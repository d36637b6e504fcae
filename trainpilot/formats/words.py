"""Dotted module names to names with underscores, and back. Used by the families' `names.py`; strings only.

"down_blocks.0.attn1.to_q" becomes "down_blocks_0_attn1_to_q". The way back has to know which underscores were there
before, so every word of a model's module names that holds one is listed.
"""

from __future__ import annotations

from collections.abc import Iterable

UNET = (
    *("down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out"),
    *("proj_in", "proj_out", "time_emb_proj", "conv_shortcut", "conv_in", "conv_out"),
    *("time_embedding", "add_embedding", "linear_1", "linear_2"),
)
CLIP = ("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection")
T5 = ("wi_0", "wi_1")


def join(dotted: str) -> str:
    """Dots become underscores."""
    return dotted.replace(".", "_")


def split(joined: str, words: Iterable[str]) -> str:
    """The inverse of `join` for names made of numbers, plain words and `words`; the longest word wins."""
    known = {tuple(word.split("_")) for word in words}
    longest = max(len(word) for word in known)
    tokens = joined.split("_")
    parts: list[str] = []
    while tokens:
        size = next((n for n in range(longest, 1, -1) if tuple(tokens[:n]) in known), 1)
        parts.append("_".join(tokens[:size]))
        tokens = tokens[size:]
    return ".".join(parts)


def clip_module(joined: str, *, wrapped: bool) -> str:
    """A CLIP text encoder's module from its joined name, as the installed transformers name it.

    transformers 5.6 and newer dropped the wrapper `text_model` from CLIPTextModel and kept it in the model with a
    projection (`wrapped`); every other tool expects it, so it is in all files.
    """
    name = split(joined, CLIP)
    return name if wrapped else name.removeprefix("text_model.")


def clip_joined(module: str) -> str:
    """The joined name of a CLIP module, always with the wrapper that other tools expect."""
    wrapped = module if module.startswith(("text_model.", "text_projection")) else "text_model." + module
    return join(wrapped)
