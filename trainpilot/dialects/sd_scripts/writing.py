"""From our configuration to sd-scripts' arguments. Used by sd_scripts and kohya_json.

Every setting is booked: mapped where reading the file gives the same value again, approximated or refused with the
reason where it does not.
"""

from __future__ import annotations

import math
from typing import Any

from trainpilot.config.describe import both, settings
from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.dialects import _draft
from trainpilot.dialects._account import Item, Writing
from trainpilot.dialects._keys import WAYS
from trainpilot.dialects.sd_scripts import data, optimizers
from trainpilot.dialects.sd_scripts.arguments import FLOW, SCRIPTS, argument_keys, subset_keys
from trainpilot.dialects.sd_scripts.reading import DEAD_ON_FLOW, MODULES, SAMPLERS
from trainpilot.families.card import card

LARGEST_SEED = 2**32 - 1  # sd-scripts seeds numpy with it
_NO_SUCH = {
    "run.deterministic": "torch's kernels are not chosen by an argument there",
    "training.ema_decay": "there is no average of the weights",
    "text_encoder.stop_step": "the text encoders are trained to the end",
    "network.block_ranks": "patterns of module names cannot be said there; --network_args block_dims counts blocks",
    "cache.max_gb": "the caches there have no limit",
    "saving.diffusers": "convert the file afterwards: trainpilot convert",
    "sampling.evaluate_at_end": "there is no comparison of strengths",
    "logging.every_steps": "every step is recorded there",
    "notifications.webhook_env": "nobody is told there",
}


class Draft(_draft.Draft):
    """Arguments that are being collected; the entries of network_args are kept apart."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config, MODULES)
        self.network: dict[str, Any] = {}


def draft(config: RunConfig) -> Draft:
    """The arguments of a configuration whose model family is known. PilotError where sd-scripts cannot train it."""
    out = Draft(config)
    _model(out)
    _network(out)
    _rates(out)
    _schedule(out)
    _length(out)
    _saving(out)
    _precision(out)
    _noise(out)
    _samples(out)
    _records(out)
    _table(out)
    out.left("sd-scripts has no such argument", _NO_SUCH)
    return out


def _model(out: Draft) -> None:
    config = out.config
    out.put("model.family")
    out.put("run.name", output_name=config.run.name)
    if config.run.seed <= LARGEST_SEED:
        out.put("run.seed", seed=config.run.seed)
    else:
        seed = config.run.seed % (LARGEST_SEED + 1)
        out.put("run.seed", "sd-scripts takes seeds of 32 bits: the rest of the division", seed=seed)
    flow = out.family in FLOW
    out.put("model.vae", "", **{"ae" if flow else "vae": config.model.vae or None})
    if flow:
        out.idle("model.prediction", "the family predicts a flow")
        out.values["t5xxl_max_token_length"] = config.text_encoder.t5_tokens
        out.put("text_encoder.t5_tokens", t5xxl_max_token_length=config.text_encoder.t5_tokens)
        for path in ("text_encoder.clip_skip", "text_encoder.clip_tokens"):
            out.idle(path, "FLUX reads only CLIP's pooled vector, of the first 75 tokens")
    else:
        out.idle("text_encoder.t5_tokens", "the family has no T5")
        if config.model.prediction == "auto":
            out.put("model.prediction", "noise is predicted unless --v_parameterization says otherwise")
        else:
            out.put("model.prediction", v_parameterization=config.model.prediction == "v_prediction")


def _network(out: Draft) -> None:
    network, flow = out.config.network, out.family in FLOW
    lycoris = network.type != "lora"
    out.values["network_module"] = "lycoris.kohya" if lycoris else MODULES[out.family]
    if lycoris:
        out.network |= {"algo": {"dora": "locon"}.get(network.type, network.type)}
        if network.type == "dora":
            out.network["dora_wd"] = True
    out.put("network.type")
    if network.rslora and network.type in ("lora", "dora"):
        scaled = network.alpha * math.sqrt(network.rank)
        out.put("network.alpha", "alpha x sqrt(rank), which gives the scale of rsLoRA", network_alpha=scaled)
        out.put("network.rslora", "in network_alpha")
    else:
        out.put("network.alpha", network_alpha=network.alpha)
        if network.rslora:
            out.idle("network.rslora", f"{network.type} has no rank scaling")
    how = "it falls on the rank's activations there" if network.dropout else ""
    out.put("network.dropout", how, network_dropout=network.dropout)
    if flow or not network.conv_rank:
        for path in ("network.conv_rank", "network.conv_alpha"):
            out.idle(path, "the family has no convolutions" if flow else "conv_rank is 0")
        if not flow and not network.conv_rank:
            out.writing.idle = [item for item in out.writing.idle if item.key != "network.conv_rank"]
            out.put("network.conv_rank")
    else:
        out.network["conv_dim"] = network.conv_rank
        out.put("network.conv_rank")
        alpha = network.conv_alpha
        out.network["conv_alpha"] = network.alpha / network.rank * network.conv_rank if alpha is None else alpha
        out.put("network.conv_alpha", "" if alpha is not None else "written out, as alpha / rank of the linear layers")
    usual = "with_conv" if network.conv_rank and not flow else "kohya"
    out.done.add("network.targets")
    if network.targets == usual:
        out.put("network.targets")
    elif lycoris and network.targets == "default":
        out.network["preset"] = "attn-only"
        out.put("network.targets", "LyCORIS' preset attn-only")
    else:
        out.put("network.targets", f"sd-scripts always adapts what network.targets = {usual} does")
    if lycoris and "preset" not in out.network:
        out.network["preset"] = "full" if usual == "with_conv" else "attn-mlp"


def _rates(out: Draft) -> None:
    optimizer, text = out.config.optimizer, out.config.text_encoder
    out.put("optimizer.learning_rate", learning_rate=optimizer.learning_rate, unet_lr=optimizer.learning_rate)
    out.put("text_encoder.train", network_train_unet_only=not text.train)
    first, second = text.learning_rate, text.learning_rate_2
    if not text.train:
        for path in ("text_encoder.learning_rate", "text_encoder.learning_rate_2"):
            out.idle(path, "the text encoders are not trained")
    elif second is not None and out.family == "sdxl":
        how = "" if first is not None else "written out, as the learning rate"
        rates = [optimizer.learning_rate if first is None else first, second]
        out.put("text_encoder.learning_rate", how, text_encoder_lr=rates)
        out.put("text_encoder.learning_rate_2")
    else:
        out.put("text_encoder.learning_rate", text_encoder_lr=None if first is None else [first])
        if second is not None:
            out.idle("text_encoder.learning_rate_2", "there is one trained text encoder")
        else:
            out.put("text_encoder.learning_rate_2")
    written = optimizers.write(optimizer)
    out.values |= {"optimizer_type": written.name, "optimizer_args": optimizers.as_pairs(written.args)}
    for path in written.mapped:
        out.put(path)
    for path, why in written.changed.items():
        out.idle(path, why)
    if optimizer.lora_plus_ratio != 1:
        out.network["loraplus_lr_ratio"] = optimizer.lora_plus_ratio
    out.put("optimizer.lora_plus_ratio")


def _schedule(out: Draft) -> None:
    schedule = out.config.schedule
    out.put("schedule.name", lr_scheduler=schedule.name)
    warmup: float = schedule.warmup_steps
    if schedule.name == "constant" and warmup:
        out.idle("schedule.warmup_steps", "a constant rate has no warm-up, and sd-scripts ends with an error on it")
    elif warmup >= 1:
        how = "" if warmup == int(warmup) else "whole steps"
        out.put("schedule.warmup_steps", how, lr_warmup_steps=int(warmup))
    else:
        out.put("schedule.warmup_steps", lr_warmup_steps=warmup or 0)


def _length(out: Draft) -> None:
    training = out.config.training
    if training.epochs is not None:
        out.put("training.epochs", max_train_epochs=training.epochs)
        out.done.add("training.steps")
    elif training.steps is not None:
        out.put("training.steps", max_train_steps=training.steps)
        out.done.add("training.epochs")
    else:
        out.done |= {"training.steps", "training.epochs"}


def _saving(out: Draft) -> None:
    saving = out.config.saving
    out.values["save_model_as"] = "safetensors"
    if saving.keep and saving.every_steps:
        window = (saving.keep - 1) * saving.every_steps
        out.put(
            "saving.keep", save_last_n_steps=window, save_last_n_epochs=saving.keep if saving.every_epochs else None
        )
    elif saving.keep:
        out.put("saving.keep", save_last_n_epochs=saving.keep)
    else:
        out.put("saving.keep")


def _precision(out: Draft) -> None:
    precision, memory, cache = out.config.precision, out.config.memory, out.config.cache
    if precision.mixed == "auto":
        how = "bf16, which newer GPUs have; fp16 for those before RTX 30"
        out.put("precision.mixed", how, mixed_precision="bf16")
    flow = out.family in FLOW
    if precision.base == "fp8":
        how = "" if flow else "the text encoders are stored in fp8, too"
        out.put("precision.base", how, fp8_base=True)
    elif precision.base == "full":
        out.put("precision.base", fp8_base=False)
    else:
        out.put("precision.base", f"fp8 is the smallest there; {precision.base} is ours", fp8_base=True)
    attention = memory.attention
    if attention in ("xformers", "sdpa", "native"):
        how = "the family always uses torch's attention there" if flow and attention == "xformers" else ""
        out.put("memory.attention", how, xformers=attention == "xformers", sdpa=attention == "sdpa")
    else:
        out.put("memory.attention", "sdpa, which takes the fastest kernel of torch", xformers=False, sdpa=True)
    crops = any(dataset.random_crop for dataset in out.config.datasets)
    how = "sd-scripts refuses it together with random_crop" if cache.latents and crops else ""
    out.put("cache.latents", how, cache_latents=cache.latents and not crops)
    if out.family == "sd15":
        out.put("cache.text", "Stable Diffusion's captions are encoded at every step there")
    else:
        changing = any(_changing(dataset) for dataset in out.config.datasets)
        trained = out.config.text_encoder.train and out.family == "sdxl"
        what = "captions that change" if changing else "trained text encoders"
        how = f"sd-scripts refuses it together with {what}" if cache.text and (changing or trained) else ""
        out.put("cache.text", how, cache_text_encoder_outputs=cache.text and not how)


def _changing(dataset: Dataset) -> bool:
    """Whether captions differ from draw to draw, by sd-scripts' reckoning."""
    captions = dataset.captions
    drawn = captions.dropout_rate or captions.tag_dropout_rate or captions.token_warmup_step
    return bool(drawn or captions.shuffle or captions.wildcards)


def _noise(out: Draft) -> None:
    noise, flow = out.config.noise, out.family in FLOW
    keys = argument_keys()
    for argument, how in DEAD_ON_FLOW.items():
        key = keys[argument]
        value = out.get(key.to)
        usual = settings()[key.to].get_default(call_default_factory=True)
        out.put(key.to, how.partition(":")[0] if flow and value != usual else "", **{argument: value})
    out.put("loss.type", loss_type=out.config.loss.type)
    kind = noise.timesteps
    if kind == "auto":
        kind = card(out.family).defaults.get("noise", {}).get("timesteps", "uniform")
    auto = f"auto is {kind} for this family" if noise.timesteps == "auto" else ""
    if not flow:
        how = auto or ("" if kind == "uniform" else "Stable Diffusion's levels are always drawn uniformly there")
        out.put("noise.timesteps", how)
        for path in ("sigmoid_scale", "shift", "logit_mean", "logit_std", "guidance"):
            out.idle(f"noise.{path}", "only flow-matching families read it")
        return
    out.values["model_prediction_type"] = "raw"
    out.put("noise.guidance", guidance_scale=noise.guidance)
    if kind == "logit_normal":
        out.put("noise.timesteps", auto, timestep_sampling="sigma", weighting_scheme="logit_normal")
        out.values["discrete_flow_shift"] = 1.0
        out.put("noise.logit_mean", logit_mean=noise.logit_mean)
        out.put("noise.logit_std", logit_std=noise.logit_std)
        for path in ("noise.shift", "noise.sigmoid_scale"):
            out.idle(path, f"noise.timesteps is {kind}")
        return
    out.put("noise.timesteps", auto, timestep_sampling=kind)
    out.put("noise.sigmoid_scale", sigmoid_scale=noise.sigmoid_scale)
    if kind == "shift":
        out.put("noise.shift", discrete_flow_shift=noise.shift)
    else:
        out.idle("noise.shift", f"noise.timesteps is {kind}")
    for path in ("noise.logit_mean", "noise.logit_std"):
        out.idle(path, f"noise.timesteps is {kind}")


def _samples(out: Draft) -> None:
    sampling, flow = out.config.sampling, out.family in FLOW
    back = {ours: theirs for theirs, ours in reversed(SAMPLERS.items())}
    out.put("sampling.every_steps", sample_every_n_steps=sampling.every_steps or None)
    if flow:
        out.idle("sampling.sampler", "the family is sampled by its own Euler method there")
    elif sampling.sampler in back:
        out.put("sampling.sampler", sample_sampler=back[sampling.sampler])
    else:
        near = "dpmsolver++" if "dpm" in sampling.sampler or sampling.sampler in ("auto", "unipc") else "euler"
        out.put("sampling.sampler", f"{near} is nearest", sample_sampler=near)
    lines = prompt_lines(out)
    how = "each line says steps, guidance, size and seed" if lines else ""
    for path in ("sampling.steps", "sampling.guidance", "sampling.negative", "sampling.size", "sampling.seed"):
        if lines:
            out.put(path, "written into each prompt")
        else:
            out.idle(path, "there are no prompts to write it into")
    out.put("sampling.prompts", how)
    if sampling.prompts_file and not sampling.prompts:
        out.put("sampling.prompts_file", sample_prompts=sampling.prompts_file)
    elif sampling.prompts_file:
        out.refuse("sampling.prompts_file", "one file of prompts is taken there, and sampling.prompts fills it")


def prompt_lines(out: Draft) -> list[str]:
    """Our prompts as lines of a prompt file, each with what our settings say and the line does not."""
    sampling = out.config.sampling
    size = sampling.size or out.config.buckets.resolution
    lines = []
    for number, prompt in enumerate(sampling.prompts):
        line = " ".join(prompt.split())
        said: dict[str, Any] = {
            "s": sampling.steps,
            "l": sampling.guidance,
            "d": (sampling.seed + number) % (LARGEST_SEED + 1),
        }
        said |= {"n": sampling.negative or None}
        if size is not None:
            said |= dict(zip(("w", "h"), both(size), strict=True))
        for option, value in said.items():
            if value is not None and f" --{option} " not in f" {line} ":
                line += f" --{option} {value}"
        lines.append(line)
    return lines


def _records(out: Draft) -> None:
    logging = out.config.logging
    kind = (
        "all" if logging.tensorboard and logging.wandb_project else "wandb" if logging.wandb_project else "tensorboard"
    )
    if not logging.tensorboard and not logging.wandb_project:
        out.put("logging.tensorboard", "records are written where a folder for them is given")
        out.put("logging.wandb_project")
        return
    out.put("logging.tensorboard", log_with=kind)
    out.put("logging.wandb_project", log_tracker_name=logging.wandb_project or None)
    if logging.tensorboard:
        out.values["logging_dir"] = "logs"


def _table(out: Draft) -> None:
    """The settings that the key table alone maps."""
    data_paths = subset_keys()
    for name, key in argument_keys().items():
        if key.by or not key.to or key.to in out.done or name in data_paths or name == "resolution":
            continue
        value = WAYS[key.way].write(out.get(key.to))
        out.put(key.to, "", **{name: value if value != "" else None})
    for name, key in data_paths.items():
        if key.to.startswith("buckets."):
            out.put(key.to, "", **{name: out.get(key.to)})
    buckets = out.config.buckets
    if buckets.resolution is None:
        size: Any = card(out.family).resolution
        out.put("buckets.resolution", "the family's", resolution=_text_size(size))
    else:
        out.put("buckets.resolution", resolution=_text_size(buckets.resolution))
    if buckets.algorithm == "kohya":
        out.put("buckets.algorithm")
    else:
        out.put("buckets.algorithm", "sd-scripts sorts by its own rule")
    out.done.add("datasets")
    found = data.folders(out.config)
    if found is not None:
        out.values |= found
        for name, value in data.common(out.config, data_paths).items():
            argument = next(k for k, key in data_paths.items() if key.to == f"datasets.{name}")
            written = WAYS[data_paths[argument].way].write(value)
            if written not in (None, "") or argument == "caption_extension":
                out.values[argument] = written
        for index, dataset in enumerate(out.config.datasets):
            row = Writing()
            data.subset(dataset, index, row)
            _move(row, out, index)


def _move(row: Writing, out: Draft, index: int) -> None:
    """Book a dataset that --train_data_dir says, where its folders' names give repeats and class."""
    for name in ("repeats", "default_caption"):
        row.approximated = [item for item in row.approximated if item.key != f"datasets.{index}.{name}"]
        out.writing.mapped.append(Item(f"datasets.{index}.{name}", None))
    for group in ("mapped", "approximated", "refused", "idle"):
        getattr(out.writing, group).extend(getattr(row, group))
    prefix = out.config.datasets[index].captions.trigger
    if prefix:
        out.values["caption_prefix"] = next(
            value
            for item in row.approximated
            for name, value in item.became.items()
            if name == "caption_prefix" and item.key.endswith("trigger")
        )


def _text_size(size: Any) -> str:
    width, height = both(size)
    return str(width) if width == height else f"{width},{height}"


def script(family: str) -> str:
    """The script that trains a LoRA of a family."""
    return next(name for name, known in SCRIPTS.items() if known == family)
