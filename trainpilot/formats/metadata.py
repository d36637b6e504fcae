"""The metadata of a LoRA file: what other tools show, and what tells how it was made. Used by the engine; no torch.

Keys `ss_*` as sd-scripts writes them, `modelspec.*` by the model metadata specification 1.0.1. Every value is a
string; None becomes "None". The same input gives the same strings: times and the session are the caller's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.samples import Sample
from trainpilot.datasets.table import Table
from trainpilot.families.card import Card

_IMPLEMENTATION = {
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "flux": "https://github.com/black-forest-labs/flux",
}
_PREDICTION = {"epsilon": "epsilon", "v_prediction": "v"}
_OPTIMIZERS = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "lion": "lion_pytorch.lion_pytorch.Lion",
    "lion8bit": "bitsandbytes.optim.lion.Lion8bit",
    "adafactor": "transformers.optimization.Adafactor",
    "prodigy": "prodigyopt.prodigy.Prodigy",
    "adamw_schedulefree": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
}
_MODULES = {"flux": "networks.lora_flux"}  # what other tools look at to tell the kind of network


@dataclass(frozen=True)
class Progress:
    """Where the run stands. Times are unix seconds; finished_at is the time of this file; epoch counts from 1."""

    session_id: int
    started_at: float
    finished_at: float
    step: int
    steps: int
    epoch: int
    epochs: int
    batches_per_epoch: int


def build(
    config: RunConfig,
    card: Card,
    table: Table,
    progress: Progress,
    base: Mapping[str, str],
    *,
    prediction: str,
    name: str,
    thumbnail: str = "",
) -> dict[str, str]:
    """All metadata but the hashes over the file itself, which the writer adds.

    card: that of the base's variant. base: what `hashes.base_hashes` gave. prediction: "epsilon", "v_prediction" or
    "flow". thumbnail: a data: URL.
    """
    values = {
        **_training(config, card, progress, name),
        **_options(config),
        **_data(config, table),
        **{key: base.get(key) for key in _BASE_KEYS},
    }
    strings = {key: _text(value) for key, value in values.items()}
    return strings | _modelspec(config, card, progress, prediction, name, thumbnail)


_BASE_KEYS = (
    *("ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash"),
    *("ss_vae_name", "ss_vae_hash", "ss_new_vae_hash"),
)


def _text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _training(config: RunConfig, card: Card, progress: Progress, name: str) -> dict[str, Any]:
    text = config.text_encoder
    rate = config.optimizer.learning_rate
    text_rate = (text.learning_rate if text.learning_rate is not None else rate) if text.train else None
    lycoris = config.network.type in ("loha", "lokr")
    return {
        "ss_session_id": progress.session_id,
        "ss_training_started_at": progress.started_at,
        "ss_training_finished_at": progress.finished_at,
        "ss_output_name": name,
        "ss_learning_rate": rate,
        "ss_unet_lr": rate,
        "ss_text_encoder_lr": text_rate,
        "ss_num_batches_per_epoch": progress.batches_per_epoch,
        "ss_num_epochs": progress.epochs,
        "ss_epoch": progress.epoch,
        "ss_steps": progress.step,
        "ss_max_train_steps": progress.steps,
        "ss_base_model_version": card.ss_base_model_version,
        "ss_v2": card.ss_base_model_version.startswith("sd_v2"),
        "ss_network_module": "lycoris.kohya" if lycoris else _MODULES.get(card.name, "networks.lora"),
        "ss_network_dim": config.network.rank,
        "ss_network_alpha": config.network.alpha,
        "ss_network_dropout": config.network.dropout or None,
        "ss_network_args": _network_args(config),
        "ss_seed": config.run.seed,
        "ss_training_comment": config.run.comment or None,
    }


def _network_args(config: RunConfig) -> dict[str, str]:
    network = config.network
    given: dict[str, Any] = {}
    if network.type in ("loha", "lokr"):
        given["algo"] = network.type
    if network.type == "dora":
        given["dora_wd"] = True
        given["wd_on_output"] = True
    if network.conv_rank:
        conv_alpha = network.conv_alpha
        given["conv_dim"] = network.conv_rank
        given["conv_alpha"] = network.alpha / network.rank * network.conv_rank if conv_alpha is None else conv_alpha
    if network.rslora:
        given["rs_lora"] = True
    if network.block_ranks:
        given["block_ranks"] = json.dumps(network.block_ranks)
    if config.optimizer.lora_plus_ratio != 1:
        given["loraplus_lr_ratio"] = config.optimizer.lora_plus_ratio
    return {key: str(value) for key, value in given.items()}


def _options(config: RunConfig) -> dict[str, Any]:
    noise, loss, schedule = config.noise, config.loss, config.schedule
    captions = config.datasets[0].captions if config.datasets else None
    arguments = ",".join(f"{key}={value}" for key, value in sorted(config.optimizer.args.items()))
    warmup = schedule.warmup_steps
    return {
        "ss_optimizer": _OPTIMIZERS[config.optimizer.name] + (f"({arguments})" if arguments else ""),
        "ss_lr_scheduler": schedule.name,
        "ss_lr_warmup_steps": warmup if 0 < warmup < 1 else int(warmup),
        "ss_max_grad_norm": config.optimizer.max_grad_norm,
        "ss_scale_weight_norms": config.network.max_norm,
        "ss_gradient_checkpointing": config.memory.gradient_checkpointing,
        "ss_gradient_accumulation_steps": config.training.gradient_accumulation,
        "ss_mixed_precision": {"fp32": "no"}.get(config.precision.mixed, config.precision.mixed),
        "ss_cache_latents": config.cache.latents,
        # sd-scripts says None for what is its default
        "ss_clip_skip": config.text_encoder.clip_skip if config.text_encoder.clip_skip > 1 else None,
        "ss_max_token_length": config.text_encoder.clip_tokens if config.text_encoder.clip_tokens > 75 else None,
        "ss_noise_offset": noise.offset or None,
        "ss_adaptive_noise_scale": noise.offset_adaptive or None,
        "ss_multires_noise_iterations": noise.multires_iterations or None,
        "ss_multires_noise_discount": noise.multires_discount,
        "ss_ip_noise_gamma": noise.ip_gamma or None,
        "ss_zero_terminal_snr": noise.zero_terminal_snr,
        "ss_loss_type": loss.type,
        "ss_min_snr_gamma": loss.min_snr_gamma or None,
        "ss_debiased_estimation": loss.debiased,
        "ss_prior_loss_weight": loss.prior_weight,
        "ss_caption_dropout_rate": captions.dropout_rate if captions else 0.0,
        "ss_caption_dropout_every_n_epochs": captions.dropout_every_n_epochs if captions else 0,
        "ss_caption_tag_dropout_rate": captions.tag_dropout_rate if captions else 0.0,
    }


def _data(config: RunConfig, table: Table) -> dict[str, Any]:
    train = [sample for sample in table.samples if not sample.regularization]
    regular = [sample for sample in table.samples if sample.regularization]
    captions = config.datasets[0].captions if config.datasets else None
    size = config.buckets.resolution
    width, height = (size, size) if isinstance(size, int) else (size or (0, 0))
    frequency: dict[str, Counter[str]] = {}
    for sample in train:
        tags = frequency.setdefault(_folder(config, sample), Counter())
        tags.update(tag.strip() for tag in sample.caption.replace("\n", ",").split(",") if tag.strip())
    return {
        "ss_num_train_images": sum(sample.repeats for sample in train),
        "ss_num_reg_images": sum(sample.repeats for sample in regular),
        "ss_batch_size_per_device": config.training.batch_size,
        "ss_total_batch_size": config.training.batch_size * config.training.gradient_accumulation,
        "ss_resolution": f"({width}, {height})",
        "ss_shuffle_caption": bool(captions and captions.shuffle),
        "ss_keep_tokens": captions.keep_tokens if captions else 0,
        "ss_enable_bucket": config.buckets.enabled,
        "ss_bucket_no_upscale": config.buckets.no_upscale,
        "ss_min_bucket_reso": config.buckets.min_side,
        "ss_max_bucket_reso": config.buckets.max_side,
        "ss_dataset_dirs": _folders(config, train),
        "ss_reg_dataset_dirs": _folders(config, regular),
        "ss_tag_frequency": {folder: dict(tags.most_common()) for folder, tags in sorted(frequency.items())},
        "ss_bucket_info": _buckets(table),
    }


def _folder(config: RunConfig, sample: Sample) -> str:
    """The folder's name, also where the pictures lie in the dataset's folder itself."""
    return sample.folder or Path(config.datasets[sample.dataset].path).name


def _folders(config: RunConfig, samples: list[Sample]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for sample in samples:
        entry = found.setdefault(_folder(config, sample), {"n_repeats": sample.repeats, "img_count": 0})
        entry["img_count"] += 1
    return dict(sorted(found.items()))


def _buckets(table: Table) -> dict[str, Any]:
    counts = table.bucket_counts()
    errors = [abs(s.size[0] / s.size[1] - s.bucket[0] / s.bucket[1]) for s in table.samples for _ in range(s.repeats)]
    return {
        "buckets": {
            str(index): {"resolution": list(bucket), "count": count}
            for index, (bucket, count) in enumerate(sorted(counts.items()))
        },
        "mean_img_ar_error": sum(errors) / len(errors) if errors else 0.0,
    }


def _modelspec(
    config: RunConfig, card: Card, progress: Progress, prediction: str, name: str, thumbnail: str
) -> dict[str, str]:
    saving = config.saving
    size = config.buckets.resolution or card.resolution
    width, height = (size, size) if isinstance(size, int) else size
    date = datetime.fromtimestamp(int(progress.finished_at), UTC).isoformat().removesuffix("+00:00")
    given = {
        "sai_model_spec": "1.0.1",
        "architecture": card.modelspec_architecture,
        "implementation": _IMPLEMENTATION.get(card.name, "diffusers"),
        "title": saving.title or name,
        "resolution": f"{width}x{height}",
        "date": date,
        "author": saving.author,
        "description": saving.description,
        "license": saving.license,
        "prediction_type": _PREDICTION.get(prediction, ""),
        "trigger_phrase": ", ".join(dict.fromkeys(d.captions.trigger for d in config.datasets if d.captions.trigger)),
        "thumbnail": thumbnail,
    }
    return {f"modelspec.{key}": value for key, value in given.items() if value}
