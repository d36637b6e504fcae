"""Configurations for the dialects' tests: any run that our schema allows, and a walk over its settings."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from trainpilot.config.describe import dataset_settings, settings
from trainpilot.config.schema import Captions, Dataset, RunConfig
from trainpilot.families.samplers import samplers_of

WORDS = st.text("abcdefgh_ -.äö1é", max_size=12).map(str.strip)
NAMES = st.from_regex(r"[a-z][a-z0-9_\-]{0,12}", fullmatch=True)
PATHS = NAMES.map(lambda name: f"/data/{name}")
RATES = st.floats(0, 1).map(lambda value: round(value, 4))
SMALL = st.floats(1e-6, 10, allow_nan=False).map(lambda value: float(f"{value:.4g}"))
SIDES = st.integers(2, 32).map(lambda value: value * 64)
# A square is one number: (64, 64) means the same and would come back as 64.
SIZES = st.one_of(SIDES, st.tuples(SIDES, SIDES).filter(lambda size: size[0] != size[1]))


def captions() -> st.SearchStrategy[Captions]:
    return st.builds(
        Captions,
        prefix=WORDS,
        suffix=WORDS,
        trigger=st.sampled_from(["", "", "zorp"]),
        dropout_rate=RATES,
        dropout_every_n_epochs=st.sampled_from([0, 2, 5]),
        wildcards=st.booleans(),
        keep_tokens=st.integers(0, 4),
        keep_tokens_separator=st.sampled_from(["", "|||"]),
        token_warmup_min=st.integers(1, 4),
        token_warmup_step=st.sampled_from([0.0, 0.5, 100.0]),
        shuffle=st.booleans(),
        tag_dropout_rate=RATES,
        separator=st.sampled_from([",", ";"]),
        secondary_separator=st.sampled_from(["", ";;;"]),
    )


def datasets() -> st.SearchStrategy[Dataset]:
    return st.builds(
        Dataset,
        path=st.one_of(PATHS, st.sampled_from(["/data/10_zorp", "/data/3_a b"])),
        repeats=st.sampled_from([None, 1, 10]),
        resolution=st.one_of(st.none(), SIZES),
        regularization=st.booleans(),
        caption_extension=st.sampled_from([".txt", ".caption"]),
        default_caption=st.sampled_from([None, "", "zorp"]),
        captions=captions(),
        flip=st.booleans(),
        random_crop=st.booleans(),
        masks=st.sampled_from([None, "/data/masks"]),
        strict=st.booleans(),
    )


@st.composite
def configs(draw: Any) -> RunConfig:
    """Any resolved-looking configuration: a known family, sizes decided."""
    family = draw(st.sampled_from(["sd15", "sdxl", "flux"]))
    name = draw(
        st.sampled_from(["adamw", "adamw8bit", "lion", "lion8bit", "adafactor", "prodigy", "adamw_schedulefree"])
    )
    low = draw(st.integers(0, 999))
    tables: dict[str, Any] = {
        "run": {
            "name": draw(st.one_of(st.none(), NAMES)),
            "seed": draw(st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1))),
            "deterministic": draw(st.booleans()),
            "comment": draw(WORDS),
        },
        "model": {
            "base": draw(PATHS),
            "family": family,
            "vae": draw(st.sampled_from([None, "/vae.safetensors"])),
            "prediction": draw(st.sampled_from(["auto", "epsilon", "v_prediction"])),
        },
        "datasets": [d.model_dump() for d in draw(st.lists(datasets(), min_size=1, max_size=3))],
        "buckets": {
            "resolution": draw(SIZES),
            "enabled": draw(st.booleans()),
            "algorithm": draw(st.sampled_from(["kohya", "native"])),
            "no_upscale": draw(st.booleans()),
            "min_side": draw(SIDES),
            "max_side": draw(SIDES),
            "step": draw(st.sampled_from([32, 64])),
        },
        "text_encoder": {
            "train": draw(st.booleans()),
            "learning_rate": draw(st.one_of(st.none(), SMALL, st.just(0.0))),
            "learning_rate_2": draw(st.one_of(st.none(), SMALL, st.just(0.0))),
            "stop_step": draw(st.sampled_from([None, 100])),
            "clip_skip": draw(st.integers(1, 4)),
            "clip_tokens": draw(st.sampled_from([75, 150, 225])),
            "t5_tokens": draw(st.sampled_from([128, 256, 512])),
        },
        "network": {
            "type": draw(st.sampled_from(["lora", "dora", "loha", "lokr"])),
            "rank": draw(st.integers(1, 128)),
            "alpha": draw(SMALL),
            "conv_rank": draw(st.sampled_from([0, 0, 8])),
            "conv_alpha": draw(st.one_of(st.none(), SMALL)),
            "dropout": draw(st.sampled_from([0.0, 0.1])),
            "rslora": draw(st.booleans()),
            "targets": draw(st.sampled_from(["default", "kohya", "with_conv", "attention_mlp"])),
            "block_ranks": draw(st.sampled_from([{}, {"^mid_block": 4}])),
            "init_from": draw(st.sampled_from([None, "/a.safetensors"])),
            "max_norm": draw(st.sampled_from([None, 1.0])),
        },
        "optimizer": {
            "name": name,
            "learning_rate": draw(st.one_of(SMALL, st.just(0.0))),
            "weight_decay": draw(RATES),
            "beta1": draw(st.sampled_from([0.0, 0.9])),
            "beta2": draw(st.sampled_from([0.99, 0.999])),
            "eps": draw(st.sampled_from([1e-8, 1e-6])),
            "args": draw(
                st.sampled_from(
                    [{}, {"d_coef": 0.5}, {"amsgrad": True}, {"mode": "a b"}, {"decouple": False}, {"k": 3}]
                )
            ),
            "max_grad_norm": draw(st.sampled_from([0.0, 0.5, 1.0])),
            "lora_plus_ratio": draw(st.sampled_from([1.0, 16.0])),
        },
        "schedule": {
            "name": draw(
                st.sampled_from(
                    ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
                )
            ),
            "warmup_steps": draw(st.sampled_from([0.0, 0.05, 0.123, 100.0, 1.5])),
            "cycles": draw(st.integers(1, 5)),
            "power": draw(st.sampled_from([1.0, 2.0])),
        },
        "training": {
            draw(st.sampled_from(["steps", "epochs"])): draw(st.integers(1, 5000)),
            "batch_size": draw(st.integers(1, 8)),
            "gradient_accumulation": draw(st.integers(1, 8)),
            "ema_decay": draw(st.sampled_from([0.0, 0.99])),
        },
        "noise": {
            "timesteps": draw(st.sampled_from(["auto", "uniform", "sigmoid", "shift", "flux_shift", "logit_normal"])),
            "sigmoid_scale": draw(SMALL),
            "shift": draw(SMALL),
            "logit_mean": draw(st.sampled_from([0.0, 0.5, -1.0])),
            "logit_std": draw(SMALL),
            "min_timestep": low,
            "max_timestep": draw(st.integers(low + 1, 1000)),
            "offset": draw(RATES),
            "offset_adaptive": draw(RATES),
            "multires_iterations": draw(st.sampled_from([0, 6])),
            "multires_discount": draw(st.sampled_from([0.0, 0.3, 0.8])),
            "ip_gamma": draw(RATES),
            "zero_terminal_snr": draw(st.booleans()),
            "guidance": draw(st.sampled_from([0.0, 1.0, 3.5])),
        },
        "loss": {
            "type": draw(st.sampled_from(["l2", "huber", "smooth_l1"])),
            "huber_c": draw(SMALL),
            "huber_schedule": draw(st.sampled_from(["constant", "exponential", "snr"])),
            "min_snr_gamma": draw(st.sampled_from([0.0, 5.0])),
            "debiased": draw(st.booleans()),
            "scale_v_like_noise": draw(st.booleans()),
            "v_like_weight": draw(RATES),
            "prior_weight": draw(st.sampled_from([0.0, 0.5, 1.0])),
        },
        "precision": {
            "mixed": draw(st.sampled_from(["auto", "bf16", "fp16", "fp32"])),
            "base": draw(st.sampled_from(["full", "int8", "nf4", "fp8"])),
            "save": draw(st.sampled_from(["fp16", "bf16", "fp32"])),
        },
        "memory": {
            "gradient_checkpointing": draw(st.booleans()),
            "attention": draw(st.sampled_from(["auto", "native", "sdpa", "flash", "xformers"])),
            "compile": draw(st.booleans()),
        },
        "cache": {"latents": draw(st.booleans()), "text": draw(st.booleans())},
        "sampling": {
            "every_steps": draw(st.sampled_from([0, 100])),
            "at_start": draw(st.booleans()),
            "prompts": draw(st.lists(st.sampled_from(["a zorp", "b --w 512", "c --n blur --d 7"]), max_size=2)),
            "prompts_file": draw(st.sampled_from([None, "/p.txt"])),
            "sampler": draw(st.sampled_from(["auto", *samplers_of(family)])),
            "steps": draw(st.integers(1, 50)),
            "guidance": draw(st.sampled_from([None, 7.0])),
            "negative": draw(st.sampled_from(["", "ugly"])),
            "size": draw(st.one_of(st.none(), SIZES)),
            "seed": draw(st.integers(0, 2**63 - 1)),
        },
        "saving": {
            "every_steps": draw(st.sampled_from([0, 250])),
            "every_epochs": draw(st.sampled_from([0, 2])),
            "keep": draw(st.integers(0, 5)),
            "diffusers": draw(st.booleans()),
            "title": draw(WORDS),
            "license": draw(WORDS),
        },
        "logging": {"tensorboard": draw(st.booleans()), "wandb_project": draw(st.sampled_from(["", "loras"]))},
    }
    return RunConfig.model_validate(tables)


def value(config: RunConfig, path: str) -> Any:
    """The value at a dotted path, with an index where it goes into datasets."""
    found: Any = config
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else getattr(found, key)
    return found


def leaves(config: RunConfig) -> dict[str, Any]:
    """Every setting of a configuration by dotted path, datasets by their index."""
    found = {path: value(config, path) for path in settings() if path != "datasets"}
    for index in range(len(config.datasets)):
        found |= {f"datasets.{index}.{path}": value(config, f"datasets.{index}.{path}") for path in dataset_settings()}
    return found
