"""From our configuration to a packed one of OneTrainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainpilot.config.describe import both
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Writing
from trainpilot.dialects._draft import Draft, book_datasets
from trainpilot.dialects._keys import WAYS
from trainpilot.dialects.onetrainer.names import FILTERS, OPTIMIZERS, SCHEDULES, VERSION, keys

SUFFIX = ".json"


def write(config: RunConfig) -> Writing:
    """A packed configuration of version 11, its concepts and samples inside."""
    models = {"sd15": "STABLE_DIFFUSION_15", "sdxl": "STABLE_DIFFUSION_XL_10_BASE", "flux": "FLUX_DEV_1"}
    out = Draft(config, models)
    name = config.run.name or "lora"
    out.values |= {"__version": VERSION, "training_method": "LORA"}
    out.put("model.family", "", model_type=models[out.family])
    out.put(
        "run.name",
        "" if config.run.name else "a file needs a name",
        output_model_destination=f"models/{name}.safetensors",
    )
    kind = "DIFFUSERS_LORA" if config.saving.diffusers else "LEGACY_LORA" if out.family != "flux" else "KOHYA_LORA"
    out.put("saving.diffusers", "", output_model_format=kind)
    _write_network(out)
    _write_rates(out)
    _write_noise(out)
    _write_rest(out)
    for key_name, key in keys().items():
        if key.to and not (key.by or key.no or key.how or key.to in out.done):
            out.put(key.to, "", **{key_name: WAYS[key.way].write(out.get(key.to))})
    out.values["concepts"] = _write_concepts(out)
    out.left(
        "OneTrainer has no such key", {"training.steps": "OneTrainer counts epochs alone", "run.seed": "it has no seed"}
    )
    part = "transformer" if out.family == "flux" else "unet"
    tree: dict[str, Any] = {}
    for key_name, value in out.values.items():
        head, dot, inner = key_name.partition(".")
        head = part if head == "unet" else head
        if dot:
            tree.setdefault(head, {})[inner] = value
        else:
            tree[head] = value
    out.writing.text = json.dumps(tree, indent=4, ensure_ascii=False) + "\n"
    out.writing.command = ["python", "scripts/train.py", "--config-path", f"{name}{SUFFIX}"]
    return out.writing


def _write_network(out: Draft) -> None:
    network = out.config.network
    kinds = {"lora": "LORA", "dora": "LORA", "loha": "LOHA", "lokr": "LOKR"}
    out.put("network.type", "", peft_type=kinds[network.type], lora_decompose=network.type == "dora")
    how = "it falls on the rank's activations there" if network.dropout else ""
    out.put("network.dropout", how, dropout_probability=network.dropout)
    flow = out.family == "flux"
    names = {"kohya": "transformer_block" if flow else "attentions", ("attention" if flow else "default"): "attn"}
    ours = network.targets if isinstance(network.targets, str) else ""
    pattern = names.get(ours, names["kohya"])
    preset = next((key for key, value in FILTERS.items() if value == pattern), "custom")
    how = "" if ours in names else f"layers whose names hold {pattern}"
    out.put("network.targets", how, layer_filter=pattern, layer_filter_preset=preset)
    if network.conv_rank:
        out.refuse("network.conv_rank", "layers have one rank there, and the filter leaves convolutions out")
    else:
        out.put("network.conv_rank")


def _write_rates(out: Draft) -> None:
    config = out.config
    optimizer, text, schedule = config.optimizer, config.text_encoder, config.schedule
    many = config.training.gradient_accumulation
    out.put("optimizer.learning_rate", "", learning_rate=optimizer.learning_rate, **{"unet.train": True})
    out.put("optimizer.max_grad_norm", "", clip_grad_norm=optimizer.max_grad_norm)
    out.values["text_encoder.train"] = text.train
    out.values["text_encoder_2.train"] = text.train and out.family == "sdxl"
    out.put("text_encoder.train")
    if text.train:
        first = text.learning_rate
        how = "" if first is not None else "as the learning rate"
        out.put("text_encoder.learning_rate", how, **{"text_encoder.learning_rate": first})
        if out.family == "sdxl":
            out.put("text_encoder.learning_rate_2", "", **{"text_encoder_2.learning_rate": text.learning_rate_2})
    else:
        out.idle("text_encoder.learning_rate", "the text encoders are not trained")
    if "text_encoder.learning_rate_2" not in out.done and text.learning_rate_2 is not None:
        out.idle("text_encoder.learning_rate_2", "no second text encoder is trained")
    if out.family == "sd15":
        out.put("text_encoder.clip_skip", "", text_encoder_layer_skip=text.clip_skip - 1)
    if out.family != "flux":
        out.idle("text_encoder.t5_tokens", "the family has no T5")
    back = {ours: theirs for theirs, ours in OPTIMIZERS.items()}
    out.put("optimizer.name", "", **{"optimizer.optimizer": back[optimizer.name]})
    plain = optimizer.name != "adafactor"
    for path in ("beta1", "beta2", "eps", "weight_decay"):
        if plain:
            out.put(f"optimizer.{path}", "", **{f"optimizer.{path}": getattr(optimizer, path)})
        else:
            out.idle(f"optimizer.{path}", "Adafactor's own are used")
    if optimizer.args:
        out.refuse("optimizer.args", "further arguments are not carried over")
    names = {ours: theirs for theirs, ours in SCHEDULES.items()} | {"constant_with_warmup": "CONSTANT"}
    warmup = schedule.warmup_steps
    theirs = 0.0 if schedule.name == "constant" else warmup * many if warmup >= 1 else warmup
    how = "" if schedule.name in names else "LINEAR is nearest"
    if schedule.name == "constant_with_warmup" and not warmup:
        how = "without warm-up it is constant"
    out.put("schedule.name", how, learning_rate_scheduler=names.get(schedule.name, "LINEAR"))
    whole = warmup < 1 or (warmup == int(warmup) and theirs > 1)
    if schedule.name == "constant" and warmup:
        out.idle("schedule.warmup_steps", "a constant rate has no warm-up here")
        out.values["learning_rate_warmup_steps"] = 0.0
    else:
        how = "" if (whole and many == 1) or theirs == 0 or warmup < 1 else "batches there, steps here"
        out.put("schedule.warmup_steps", how, learning_rate_warmup_steps=float(theirs))
    out.put("schedule.cycles", "", learning_rate_cycles=float(schedule.cycles))
    if config.training.epochs is not None:
        out.put("training.epochs", "", epochs=config.training.epochs)
    out.done |= {"training.epochs"}


def _write_noise(out: Draft) -> None:
    noise, loss, flow = out.config.noise, out.config.loss, out.family == "flux"
    kind = noise.timesteps
    if kind == "logit_normal":
        out.put("noise.timesteps", "", timestep_distribution="LOGIT_NORMAL")
        out.put("noise.logit_std", "the number is one less there", noising_weight=noise.logit_std - 1)
        out.put("noise.logit_mean", "", noising_bias=noise.logit_mean)
    elif kind == "uniform":
        out.put("noise.timesteps", "", timestep_distribution="UNIFORM")
    elif kind == "flux_shift" and flow:
        out.put("noise.timesteps", "", timestep_distribution="LOGIT_NORMAL", dynamic_timestep_shifting=True)
        out.put("noise.sigmoid_scale", "the number is one less there", noising_weight=noise.sigmoid_scale - 1)
    elif kind == "auto":
        out.put("noise.timesteps", "the family's", timestep_distribution="LOGIT_NORMAL" if flow else "UNIFORM")
    else:
        shift = noise.shift if kind == "shift" else None
        how = "logit-normal levels are the same"
        out.put("noise.timesteps", how, timestep_distribution="LOGIT_NORMAL", timestep_shift=shift)
        out.put("noise.sigmoid_scale", how, noising_weight=noise.sigmoid_scale - 1)
        if shift is not None:
            out.put("noise.shift", how)
    for path in ("noise.logit_std", "noise.logit_mean", "noise.sigmoid_scale", "noise.shift"):
        if path not in out.done:
            out.idle(path, f"noise.timesteps is {kind}")
    if not flow:
        out.idle("noise.guidance", "the family has no embedded guidance")
    strengths = {"l2": "mse", "huber": "huber", "smooth_l1": "mae"}
    chosen = {f"{name}_strength": float(name == strengths[loss.type]) for name in ("mse", "mae", "huber")}
    out.put("loss.type", "" if loss.type == "l2" else "OneTrainer's own form of it", **chosen)
    if loss.min_snr_gamma and not flow:
        out.put("loss.min_snr_gamma", "", loss_weight_fn="MIN_SNR_GAMMA", loss_weight_strength=loss.min_snr_gamma)
    elif loss.debiased and not flow:
        out.put("loss.debiased", "", loss_weight_fn="DEBIASED_ESTIMATION")


def _write_rest(out: Draft) -> None:
    config = out.config
    kinds = {
        "nf4": "NFLOAT_4",
        "int8": "INT_8",
        "fp8": "FLOAT_8",
        "full": "BFLOAT_16" if out.family == "flux" else "FLOAT_16",
    }
    out.put("precision.base", "", **{"unet.weight_dtype": kinds[config.precision.base]})
    if config.precision.mixed == "auto":
        out.put("precision.mixed", "bfloat16, which newer GPUs have", train_dtype="BFLOAT_16")
    attention = config.memory.attention
    how = "" if attention in ("sdpa", "flash") else "torch's kernels"
    out.put("memory.attention", how, attention_mechanism="FLASH" if attention == "flash" else "SDP")
    decay = config.training.ema_decay
    out.put(
        "training.ema_decay", "", ema="GPU" if decay else "OFF", ema_decay=decay or None, ema_update_step_interval=1
    )
    many, sampling, saving = config.training.gradient_accumulation, config.sampling, config.saving
    unit = "STEP" if sampling.every_steps else "NEVER"
    out.put("sampling.every_steps", "", sample_after=sampling.every_steps * many, sample_after_unit=unit)
    if saving.every_steps or not saving.every_epochs:
        unit = "STEP" if saving.every_steps else "NEVER"
        out.put("saving.every_steps", "", save_every=saving.every_steps * many, save_every_unit=unit)
        if saving.every_epochs:
            out.refuse("saving.every_epochs", "one interval alone: saving.every_steps")
    else:
        out.put("saving.every_epochs", "", save_every=saving.every_epochs, save_every_unit="EPOCH")
        out.put("saving.every_steps")
    rolling = {"rolling_backup": bool(saving.keep), "rolling_backup_count": saving.keep or None}
    out.put("saving.keep", "", **rolling)
    size = config.buckets.resolution
    if size is not None:
        width, height = both(size)
        text = str(width) if width == height else f"{width}x{height}"
        out.put("buckets.resolution", "", resolution=text)
    out.put("cache.latents", "", latent_caching=config.cache.latents)
    if config.cache.text != config.cache.latents:
        out.put("cache.text", "cached together with the latents")
    if config.buckets.algorithm == "kohya":
        out.refuse("buckets.algorithm", "OneTrainer sorts by its own rule")
    rows = [{"prompt": " ".join(line.split())} for line in sampling.prompts]
    if rows:
        how = "options such as --w stay in the text; its own fields for them keep their defaults"
        out.put("sampling.prompts", how, samples=rows)


def _write_concepts(out: Draft) -> list[dict[str, Any]]:
    out.done.add("datasets")
    rows = []
    for index, dataset in enumerate(out.config.datasets):
        captions = dataset.captions
        text = {"enable_tag_shuffling": captions.shuffle, "tag_delimiter": captions.separator}
        text |= {"keep_tags_count": captions.keep_tokens, "tag_dropout_enable": captions.tag_dropout_rate > 0}
        text |= {"tag_dropout_probability": captions.tag_dropout_rate}
        image = {"enable_crop_jitter": dataset.random_crop, "enable_random_flip": dataset.flip}
        row = {"__version": 2, "name": Path(dataset.path).name, "path": dataset.path, "seed": index, "enabled": True}
        row |= {"balancing": float(dataset.repeats or 1), "balancing_strategy": "REPEATS", "image": image, "text": text}
        done = {"path": "", "flip": "", "random_crop": "", "captions.shuffle": "", "captions.keep_tokens": ""}
        done |= {"captions.tag_dropout_rate": "", "captions.separator": ""}
        done["repeats"] = "" if dataset.repeats else "1; folder names are not read there"
        done["captions.wildcards"] = "" if captions.wildcards else "a line is drawn from several there"
        book_datasets(out, index, done, "OneTrainer has no such key")
        rows.append(row)
    return rows
