"""From our configuration to a job of AI Toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from trainpilot.config.describe import both
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Writing
from trainpilot.dialects._draft import Draft, book_datasets
from trainpilot.dialects._keys import WAYS
from trainpilot.dialects.ai_toolkit.names import EPS, LEVELS, OPTIMIZERS, SECTIONS, TRANSFORMERS, keys
from trainpilot.dialects.sd_scripts import optimizers

SUFFIX = ".yaml"


def write(config: RunConfig) -> Writing:
    """A job for AI Toolkit's `run.py`, and that command."""
    architectures = {"sd15": "sd1", "sdxl": "sdxl", "flux": "flux", "sd3": "sd3"}
    out = Draft(config, architectures)
    name = config.run.name or "lora"
    _write_model(out, architectures)
    _write_network(out)
    _write_training(out)
    _write_samples(out)
    for key, row in keys().items():
        if (
            row.to
            and not row.by
            and not row.no
            and not row.how
            and not key.startswith("dataset.")
            and row.to not in out.done
        ):
            ours = out.get(row.to)
            out.put(row.to, "", **{key: WAYS[row.way].write(ours)})
    rows = _write_datasets(out)
    out.left("AI Toolkit has no such key", _WHY)
    sections: dict[str, Any] = {section: {} for section in SECTIONS}
    process: dict[str, Any] = {"type": "sd_trainer", "training_folder": "output", "device": "cuda:0"}
    for key, value in out.values.items():
        section, _, inner = key.partition(".")
        if key.startswith("train.ema_config."):
            sections["train"].setdefault("ema_config", {})[inner.partition(".")[2]] = value
        elif section == "process":
            process[inner] = value
        else:
            sections[section][inner] = value
    process |= {"network": sections["network"], "save": sections["save"], "logging": sections["logging"]}
    process |= {"datasets": rows, "train": sections["train"], "model": sections["model"], "sample": sections["sample"]}
    job = {"job": "extension", "config": {"name": name, "process": [process]}}
    out.writing.text = yaml.safe_dump(job, sort_keys=False, allow_unicode=True, width=1000)
    out.writing.command = ["python", "run.py", f"{name}{SUFFIX}"]
    return out.writing


_WHY = {
    "training.epochs": "AI Toolkit counts steps alone; the plan prints how many these epochs are",
    "buckets.algorithm": "AI Toolkit sorts by its own rule",
    "network.block_ranks": "ranks by layer cannot be said there",
}


def _write_model(out: Draft, architectures: Mapping[str, str]) -> None:
    config = out.config
    out.put("model.family", "", **{"model.arch": architectures[out.family]})
    out.put("run.name", "" if config.run.name else "a job needs a name")
    out.put("run.seed", "", **{"process.training_seed": config.run.seed})
    base, flow = config.precision.base, out.family in TRANSFORMERS
    kinds = {"fp8": "qfloat8", "int8": "int8", "nf4": "uint4"}
    if base == "full":
        out.put("precision.base", "", **{"model.quantize": False})
    else:
        how = "uint4 is nearest" if base == "nf4" else ""
        out.put("precision.base", how, **{"model.quantize": True, "model.qtype": kinds[base]})
    if config.precision.mixed == "auto":
        out.put("precision.mixed", "bf16, which newer GPUs have", **{"train.dtype": "bf16"})
    if flow:
        out.idle("model.prediction", "the family predicts a flow")
    elif config.model.prediction == "auto":
        out.put("model.prediction", "noise is predicted unless is_v_pred says otherwise")
    attention = config.memory.attention
    if attention in ("xformers", "sdpa"):
        out.put("memory.attention", "", **{"train.xformers": attention == "xformers", "train.sdp": attention == "sdpa"})
    elif attention == "flash":
        out.put("memory.attention", "", **{"train.attention_backend": "flash"})
    else:
        out.put("memory.attention", "torch's kernels", **{"train.sdp": True})


def _write_network(out: Draft) -> None:
    network, flow = out.config.network, out.family in TRANSFORMERS
    if network.type == "loha":
        out.put("network.type", "LoHa is not there; LoRA takes its place", **{"network.type": "lora"})
    else:
        out.put("network.type", "", **{"network.type": network.type})
    out.put("network.rank", "", **{"network.linear": network.rank})
    if flow:
        how = "" if network.alpha == network.rank else "AI Toolkit ignores alpha on transformers and takes the rank"
        out.put("network.alpha", how, **{"network.linear_alpha": network.alpha})
        for path in ("network.conv_rank", "network.conv_alpha"):
            out.idle(path, "the family has no convolutions")
    else:
        out.put("network.alpha", "", **{"network.linear_alpha": network.alpha})
        out.put("network.conv_rank", "", **{"network.conv": network.conv_rank or None})
        if not network.conv_rank:
            out.idle("network.conv_alpha", "conv_rank is 0")
        elif network.conv_alpha is None:
            alpha = network.alpha / network.rank * network.conv_rank
            out.put(
                "network.conv_alpha",
                "written out, as alpha / rank of the linear layers",
                **{"network.conv_alpha": alpha},
            )
        else:
            out.put("network.conv_alpha", "", **{"network.conv_alpha": network.conv_alpha})
    how = "it falls on the rank's activations there" if network.dropout else ""
    out.put("network.dropout", how, **{"network.dropout": network.dropout or None})
    usual = "with_conv" if network.conv_rank and not flow else "kohya"
    out.put("network.targets", "" if network.targets == usual else "every linear layer of the blocks is adapted there")
    if network.rslora:
        out.refuse("network.rslora", "the scale is always alpha / rank there")


def _write_training(out: Draft) -> None:
    config = out.config
    training, optimizer, schedule = config.training, config.optimizer, config.schedule
    if training.steps is not None:
        out.put("training.steps", "", **{"train.steps": training.steps})
    how = "gradients are summed there" if training.gradient_accumulation > 1 else ""
    out.put("training.gradient_accumulation", how, **{"train.gradient_accumulation": training.gradient_accumulation})
    decay = training.ema_decay
    ema: dict[str, Any] = {"train.ema_config.use_ema": bool(decay)}
    out.put("training.ema_decay", "", **ema | ({"train.ema_config.ema_decay": decay} if decay else {}))
    written = optimizers.write(optimizer)
    name = optimizer.name if optimizer.name in OPTIMIZERS else "adamw"
    params = {key: list(value) if isinstance(value, tuple) else value for key, value in written.args.items()}
    eps = params.pop("eps", None)
    low = name == "prodigy" and optimizer.learning_rate < 0.1
    for path in written.mapped:
        if path == "optimizer.eps" and eps != EPS:
            out.put(path, "1e-6 there, whatever is said")
        elif path == "optimizer.name":
            how = "" if name == optimizer.name else "Schedule-Free is not there; AdamW takes its place"
            out.put(path, how, **{"train.optimizer": name, "train.optimizer_params": params})
        else:
            out.put(path)
    for path, why in written.changed.items():
        out.idle(path, why)
    rate = {"train.lr": optimizer.learning_rate, "train.train_unet": True}
    out.put("optimizer.learning_rate", "AI Toolkit takes 1 for Prodigy below 0.1" if low else "", **rate)
    for path in ("text_encoder.learning_rate", "text_encoder.learning_rate_2"):
        if out.get(path) is None:
            continue
        if config.text_encoder.train:
            out.refuse(path, "text encoders train at train.lr there")
        else:
            out.idle(path, "the text encoders are not trained")
    params = {"num_warmup_steps": int(schedule.warmup_steps)} if schedule.name == "constant_with_warmup" else {}
    out.put("schedule.name", "", **{"train.lr_scheduler": schedule.name})
    if schedule.name == "constant_with_warmup" and schedule.warmup_steps == int(schedule.warmup_steps):
        out.put("schedule.warmup_steps", "", **{"train.lr_scheduler_params": params})
    elif schedule.warmup_steps == 0:
        out.put("schedule.warmup_steps")
    elif schedule.name == "constant_with_warmup":
        steps = schedule.warmup_steps * (training.steps or 1000) if schedule.warmup_steps < 1 else schedule.warmup_steps
        params = {"num_warmup_steps": int(steps)}
        out.put("schedule.warmup_steps", "in whole steps", **{"train.lr_scheduler_params": params})
    else:
        out.refuse("schedule.warmup_steps", "only constant_with_warmup has a warm-up there")
    losses = {
        "l2": ("mse", ""),
        "huber": ("pseudo_huber", "its c is 0.01 there"),
        "smooth_l1": ("mae", "mae is nearest"),
    }
    kind, how = losses[config.loss.type]
    out.put("loss.type", how, **{"train.loss_type": kind})
    _write_noise(out)


def _write_noise(out: Draft) -> None:
    noise, flow = out.config.noise, out.family in TRANSFORMERS
    back = {ours: theirs for theirs, ours in LEVELS.items()}
    if not flow:
        plain = noise.timesteps == "uniform"
        out.put("noise.timesteps", "" if plain else "levels are drawn uniformly there")
        out.idle("noise.guidance", "the family has no embedded guidance")
        return
    near = back.get(noise.timesteps, "sigmoid")
    how = "" if noise.timesteps in back else f"{near} is nearest"
    out.put("noise.timesteps", how, **{"train.timestep_type": near})
    out.put("noise.guidance", "", **{"train.cfg_scale": noise.guidance, "train.bypass_guidance_embedding": False})


def _write_samples(out: Draft) -> None:
    sampling, flow = out.config.sampling, out.family in TRANSFORMERS
    scheduler = "flowmatch" if flow else "ddpm"
    out.values |= {"train.noise_scheduler": scheduler, "sample.sampler": scheduler, "sample.walk_seed": True}
    out.put("sampling.every_steps", "", **{"sample.sample_every": sampling.every_steps})
    size = sampling.size
    if size is None:
        width, height = both(out.config.buckets.resolution or 512)
        out.put("sampling.size", "the training size, written out", **{"sample.width": width, "sample.height": height})
    else:
        width, height = both(size)
        out.put("sampling.size", "", **{"sample.width": width, "sample.height": height})
    out.put("sampling.negative", "", **{"sample.neg": sampling.negative})
    if flow:
        out.put("sampling.guidance", "FLUX.1's embedded guidance, 3.5", **{"sample.guidance_scale": 3.5})
    elif sampling.guidance is None:
        out.put("sampling.guidance", "7, which is usual", **{"sample.guidance_scale": 7.0})
    else:
        out.put("sampling.guidance", "", **{"sample.guidance_scale": sampling.guidance})
    out.put("sampling.sampler", "" if sampling.sampler == "auto" else "the family's own method is used there")
    how = "guidance is added to each as --g when it is read again" if flow and sampling.prompts else ""
    prompts = [{"prompt": " ".join(line.split())} for line in sampling.prompts]
    out.put("sampling.prompts", how, **{"sample.samples": prompts or None})
    if out.config.logging.wandb_project:
        project = {"logging.use_wandb": True, "logging.project_name": out.config.logging.wandb_project}
        out.put("logging.wandb_project", "", **project)


def _write_datasets(out: Draft) -> list[dict[str, Any]]:
    """One row a dataset; what the rows cannot say is booked."""
    config = out.config
    out.done.add("datasets")
    cached = config.cache.latents
    out.put("cache.latents")
    out.put("buckets.enabled")
    size = config.buckets.resolution
    how = "each dataset says its own" if size is not None else ""
    out.put("buckets.resolution", how)
    rows = []
    for index, dataset in enumerate(config.datasets):
        row: dict[str, Any] = {"folder_path": dataset.path}
        done = {"path": ""}
        own = dataset.resolution if dataset.resolution is not None else size or 512
        width, height = both(own)
        row["resolution"] = round((width * height) ** 0.5) if width != height else width
        done["resolution"] = "" if dataset.resolution == row["resolution"] else "one number, of the same area"
        row["num_repeats"] = dataset.repeats or 1
        done["repeats"] = "" if dataset.repeats else "1; folder names are not read there"
        row |= {"flip_x": dataset.flip, "cache_latents_to_disk": cached, "buckets": config.buckets.enabled}
        done["flip"] = "mirrored copies double the epoch there" if dataset.flip else ""
        for name, key in keys().items():
            if (
                name.startswith("dataset.")
                and key.to.startswith("datasets.")
                and not key.by
                and name != "dataset.caption_type"
            ):
                path = key.to.removeprefix("datasets.")
                value = WAYS[key.way].write(_of(dataset, path))
                if path != "repeats" and value is not None:
                    row[name.removeprefix("dataset.")] = value
                done.setdefault(path, "")
        if dataset.default_caption == "":
            done["default_caption"] = "as if there were none"
        if dataset.captions.trigger:
            row["trigger_word"] = dataset.captions.trigger
            done["captions.trigger"] = "put before captions that do not hold it anywhere"
        book_datasets(out, index, done, "AI Toolkit has no such key")
        rows.append(row)
    return rows


def _of(section: Any, path: str) -> Any:
    for key in path.split("."):
        section = getattr(section, key)
    return section
