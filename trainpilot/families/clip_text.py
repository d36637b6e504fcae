"""CLIP text encoders: captions longer than 75 tokens, and earlier layers. Used by all families that have CLIP.

A caption of 75, 150 or 225 tokens is read in chunks of the encoder's own length, each with its own start and end
token, and put together as sd-scripts does: start, the chunks' inner parts, end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainpilot.errors import PilotError

CHUNK = 75  # caption tokens of one pass, in the unit of `text_encoder.clip_tokens`


@dataclass(frozen=True)
class ClipOutput:
    """hidden: [B,T,D] with T = 2 + inner tokens of all chunks. pooled: [B,P], of the first chunk."""

    hidden: Tensor
    pooled: Tensor


def tokenize(tokenizer: Any, captions: Sequence[str], tokens: int) -> Tensor:
    """[B, chunks, L] token ids; tokens is 75, 150 or 225. What is longer is cut off."""
    length = tokenizer.model_max_length
    inner = length - 2
    chunks = tokens // CHUNK
    rows = []
    for caption in captions:
        ids = tokenizer(
            caption, add_special_tokens=False, truncation=True, max_length=inner * chunks, verbose=False
        ).input_ids
        parts = [ids[i * inner : (i + 1) * inner] for i in range(chunks)]
        rows.append([_framed(part, tokenizer, length) for part in parts])
    return torch.tensor(rows)


def _framed(ids: list[int], tokenizer: Any, length: int) -> list[int]:
    framed = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return framed + [tokenizer.pad_token_id] * (length - len(framed))


def encode(
    encoder: nn.Module, tokenizer: Any, captions: Sequence[str], *, tokens: int, layer: int, normalise: bool
) -> ClipOutput:
    """Encode captions. layer: 1 the last, 2 the one before it; normalise: put the final layer norm behind it.

    Differentiable. No attention mask: Stable Diffusion was trained without one.
    """
    ids = tokenize(tokenizer, captions, tokens).to(next(encoder.parameters()).device)
    batch, chunks, length = ids.shape
    output = encoder(input_ids=ids.view(batch * chunks, length), output_hidden_states=True)
    if layer >= len(output.hidden_states):
        most = len(output.hidden_states) - 1
        raise PilotError("text_encoder.clip_skip", layer, f"1 to {most}, the layers of this CLIP", "Choose fewer.")
    hidden = output.hidden_states[-layer]
    if normalise:
        inner: Any = getattr(encoder, "text_model", encoder)
        hidden = inner.final_layer_norm(hidden)
    pooled = output.text_embeds if hasattr(output, "text_embeds") else output.pooler_output
    return ClipOutput(_joined(hidden.view(batch, chunks, length, -1)), pooled.view(batch, chunks, -1)[:, 0])


def _joined(hidden: Tensor) -> Tensor:
    """[B,chunks,L,D] -> [B, 2 + chunks (L-2), D]: start of the first, inner parts of all, end of the last."""
    inner = hidden[:, :, 1:-1].flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], inner, hidden[:, -1, -1:]], dim=1)


def open_clip_names(tensors: dict[str, Tensor], config: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """OpenCLIP's text tower in transformers' names, for `num_hidden_layers` layers (SD 2.x leaves the last one out)."""
    renamed: dict[str, Tensor] = {}
    inner = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    inner |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for layer in range(config["num_hidden_layers"]):
        source, target = f"transformer.resblocks.{layer}.", f"{prefix}encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for name, ours in inner.items():
                renamed[f"{target}{ours}.{kind}"] = tensors[f"{source}{name}.{kind}"]
            for part, fused in zip("qkv", tensors[f"{source}attn.in_proj_{kind}"].chunk(3), strict=True):
                renamed[f"{target}self_attn.{part}_proj.{kind}"] = fused
    for kind in ("weight", "bias"):
        renamed[f"{prefix}final_layer_norm.{kind}"] = tensors[f"ln_final.{kind}"]
    renamed[f"{prefix}embeddings.token_embedding.weight"] = tensors["token_embedding.weight"]
    renamed[f"{prefix}embeddings.position_embedding.weight"] = tensors["positional_embedding"]
    if prefix and "text_projection" in tensors:
        renamed["text_projection.weight"] = tensors["text_projection"].T.contiguous()
    return renamed


def bare_names(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """A transformers CLIP of before version 5.6: without the level `text_model` and its index buffer."""
    return {n.removeprefix("text_model."): t for n, t in tensors.items() if not n.endswith("position_ids")}
