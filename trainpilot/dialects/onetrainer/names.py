"""What OneTrainer calls things: its keys, families, schedules, optimizers and number formats. Used both ways."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from trainpilot.dialects._keys import Key, table

VERSION = 11
MODELS = {
    "STABLE_DIFFUSION_15": "sd15",
    "STABLE_DIFFUSION_20": "sd15",
    "STABLE_DIFFUSION_20_BASE": "sd15",
    "STABLE_DIFFUSION_21": "sd15",
    "STABLE_DIFFUSION_21_BASE": "sd15",
    "STABLE_DIFFUSION_XL_10_BASE": "sdxl",
    "FLUX_DEV_1": "flux",
    "STABLE_DIFFUSION_3": "sd3",
    "STABLE_DIFFUSION_35": "sd3",
}
# Beginnings of names that have no part in a LoRA of our families, and why.
IDLE = {
    "__version": "the version of the file",
    "workspace_dir": "a run's files lie in outputs/<run>/ of the workspace",
    "cache_dir": "the cache is the workspace's",
    "debug": "the log is always whole",
    "tensorboard_": "TensorBoard is a service of its own",
    "validate_after": "it goes with validation",
    "prevent_overwrites": "nothing is ever overwritten",
    "include_train_config": "the configuration is always in the file's metadata",
    "train_device": "the device is chosen when the run starts",
    "temp_device": "the device is chosen when the run starts",
    "dataloader_threads": "pictures are read ahead by threads of our own",
    "huggingface_cache_dir": "models are looked for in the workspace and the hub's cache",
    "offline_mode": "training never needs the network",
    "multi_gpu": "several devices are started by accelerate launch",
    "device_indexes": "several devices are started by accelerate launch",
    "gradient_reduce": "only for several devices",
    "fused_gradient_reduce": "only for several devices",
    "async_": "how weights are moved does not change the result",
    "cloud": "machines are rented outside",
    "secrets": "secrets belong into environment variables",
    "fallback_train_dtype": "unstable parts work in float32 by themselves",
    "enable_autocast_cache": "it is torch's own",
    "quantization": "the layers stored in few bits are chosen by the trainer",
    "optimizer_defaults": "the interface's memory of other optimizers",
    "sample_": "samples are PNG files, with prompt and seed inside",
    "samples_to_tensorboard": "samples are in TensorBoard where that is on",
    "oft_": "OFT is no adapter here",
    "lokr_": "LoKr takes network.rank and chooses its factor",
    "bundle_additional_embeddings": "no embeddings are trained",
    "embedding": "no embeddings are trained",
    "additional_embeddings": "no embeddings are trained",
    "preserve_embedding_norm": "no embeddings are trained",
    "frames": "only for videos",
    "text_encoder_": "another family's encoder",
    "prior": "another family's part",
    "unconditional_transformer": "another family's part",
    "decoder": "another family's part",
    "effnet_encoder": "another family's part",
    "vae": "the VAE works in the precision it is stable in",
    "unet": "of the denoiser, only its rate, format and checkpointing are chosen here",
    "text_encoder": "of the text encoder, only its rate is chosen here",
}
SCHEDULES = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
}
OPTIMIZERS = {
    "ADAMW": "adamw",
    "ADAMW_8BIT": "adamw8bit",
    "LION": "lion",
    "LION_8BIT": "lion8bit",
    "ADAFACTOR": "adafactor",
    "PRODIGY": "prodigy",
    "SCHEDULE_FREE_ADAMW": "adamw_schedulefree",
}
NEAR_OPTIMIZERS = {"ADAM": "adamw", "ADAM_8BIT": "adamw8bit", "ADAMW_ADV": "adamw", "LION_ADV": "lion"}
STORAGE = {"NFLOAT_4": "nf4", "INT_8": "int8", "FLOAT_8": "fp8", "INT_W8A8": "int8", "FLOAT_W8A8": "fp8"}
FILTERS = {"attn-mlp": "attentions", "attn-only": "attn", "blocks": "transformer_block", "full": ""}


@cache
def keys() -> Mapping[str, Key]:
    """Every key that is read, by dotted name; `unet` stands for the family's denoiser."""
    return table(Path(__file__).with_name("keys.toml"))


def fate(name: str) -> str:
    """The list a key falls into when a file sets it to something of its own."""
    return keys()[name].fate
