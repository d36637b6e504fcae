"""Miniatures of the families: random models of a few megabytes in diffusers layout, with tokenizers, made offline.

Shared by the families' `tiny`; used wherever something has to run end to end in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainpilot.families.construction import Configs, build, class_of
from trainpilot.families.loading import silence_progress_bars

CLIP_VOCABULARY = 514  # 256 bytes, the same at a word's end, two special tokens
T5_WORDS = "a the red green blue large small star circle square at of on left right zorp photo painting character"


def clip_config(width: int, layers: int, *, projected: bool = False, act: str = "quick_gelu") -> dict[str, Any]:
    """A CLIP text encoder's component configuration with the vocabulary of `clip_tokenizer`."""
    config = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "hidden_act": act,
        "projection_dim": width,
        "max_position_embeddings": 77,
        "vocab_size": CLIP_VOCABULARY,
        "bos_token_id": CLIP_VOCABULARY - 2,
        "eos_token_id": CLIP_VOCABULARY - 1,
        "pad_token_id": CLIP_VOCABULARY - 1,
    }
    return {"class": "transformers.CLIPTextModel" + ("WithProjection" if projected else ""), "config": config}


def vae_config(latent_channels: int, **further: Any) -> dict[str, Any]:
    """A VAE of two levels: one latent for 2x2 pixels."""
    config: dict[str, Any] = {
        "sample_size": 32,
        "block_out_channels": [16, 32],
        "norm_num_groups": 8,
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    return {"class": "diffusers.AutoencoderKL", "config": config | further}


def unet_config(**small: Any) -> dict[str, Any]:
    """A U-Net with one layer a block; `small` sets its blocks."""
    config = {"norm_num_groups": 8, "layers_per_block": 1, "sample_size": 16}
    return {"class": "diffusers.UNet2DConditionModel", "config": config | small}


def t5_config(width: int, vocabulary: int) -> dict[str, Any]:
    """A T5 encoder of two layers, without its dropout."""
    config = {
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "vocab_size": vocabulary,
        "dropout_rate": 0.0,
        "is_encoder_decoder": False,
        "use_cache": False,
    }
    return {"class": "transformers.T5EncoderModel", "config": config}


def clip_tokenizer() -> Any:
    """Byte-level BPE without merges: every byte is a token, so every caption can be read."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    symbols = sorted(ByteLevel.alphabet())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    """A unigram tokenizer of common words and all printable ASCII."""
    from transformers import T5TokenizerFast

    letters = [(chr(code), -6.0) for code in range(33, 127)]
    words = [("▁" + word, -3.0) for word in T5_WORDS.split()]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return T5TokenizerFast(vocab=[*special, ("▁", -2.0), *letters, *words], extra_ids=0, model_max_length=512)


def write(folder: Path, pipeline: str, configs: Configs, tokenizers: Mapping[str, Any], seed: int) -> Path:
    """Build every component at random from `seed` and save them as a diffusers pipeline; returns `folder`.

    Matrices are scaled up from the libraries' initialisation, under which attention would be near uniform and a
    caption without any influence on the picture.
    """
    silence_progress_bars()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {name: build(component) for name, component in configs.items() if name != "scheduler"}
    for name, module in parts.items():
        if name.startswith("text_encoder"):
            _spread(module)
    scheduler = configs["scheduler"]
    parts["scheduler"] = class_of(scheduler["class"])(**scheduler["config"])
    kind = class_of(pipeline)
    parts |= tokenizers
    parts = dict.fromkeys(kind._optional_components) | parts
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    kind(**parts).save_pretrained(folder)
    return folder


def _spread(encoder: nn.Module) -> None:
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5.0)
