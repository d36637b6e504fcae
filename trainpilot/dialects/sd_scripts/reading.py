"""From sd-scripts' arguments to our settings, group by group. Used by sd_scripts and kohya_json.

Every group books each argument it stands for exactly once; `Arguments.rest` books those the key table alone decides.
"""

from __future__ import annotations

import math
import re
from typing import Any

from trainpilot.config.schema import MAX_SEED
from trainpilot.dialects.sd_scripts import blocks, optimizers
from trainpilot.dialects.sd_scripts.arguments import FLOW, Arguments, all_keys, family_named

LOGISTIC = 1.702  # deviation of the normal distribution nearest to the logistic one
_NAME = re.compile(r"[^\w.\- ]+")
SAMPLERS = {
    "ddim": "ddim",
    "euler": "euler",
    "k_euler": "euler",
    "euler_a": "euler_a",
    "k_euler_a": "euler_a",
    "dpmsolver++": "dpmpp_2m",
}
NEAR_SAMPLERS = {
    "dpmsolver": "dpmpp_2m",
    "dpmsingle": "dpmpp_2m",
    "dpm_2": "dpmpp_2m",
    "k_dpm_2": "dpmpp_2m",
    "heun": "euler",
    "lms": "euler",
    "k_lms": "euler",
    "pndm": "ddim",
    "dpm_2_a": "euler_a",
    "k_dpm_2_a": "euler_a",
}
MODULES = {"sd15": "networks.lora", "sdxl": "networks.lora", "flux": "networks.lora_flux", "sd3": "networks.lora_sd3"}
ALGORITHMS = {"": "lora", "lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
# LyCORIS presets -> our target presets; `full` covers what Kohya's LoRA does and the convolutions.
PRESETS = {"attn-only": "default", "attn-mlp": "kohya", "unet-transformer-only": "kohya", "full-lin": "kohya"}
SIGMA = ("logit_normal", "uniform", "none")


def read_arguments(args: Arguments) -> None:
    """Book everything that `args` holds. The data (folders, dataset file) are the caller's."""
    _family(args)
    _name(args)
    _network(args)
    blocks.read(args)
    _rates(args)
    _optimizer(args)
    _schedule(args)
    _length(args)
    _saving(args)
    _precision(args)
    _cache(args)
    _noise(args)
    _levels(args)
    _loss(args)
    _samples(args)
    _records(args)
    args.rest()


def _family(args: Arguments) -> None:
    module = str(args.value("network_module") or "")
    if args.family is None:
        flux = module.endswith(("lora_flux", "oft_flux")) or bool(args.value("ae") or args.value("t5xxl"))
        args.family = "sd3" if module.endswith("lora_sd3") else "flux" if flux and not args.value("clip_g") else None
    if args.family is not None:
        family_named(args.family, args.ledger.reading.dialect)
        args.ledger.values["model.family"] = args.family
        args.ledger.origin["model.family"] = "the script"
    if args.value("v2"):
        args.settle("v2", {}, "the base model's own files tell which Stable Diffusion it is")
    else:
        args.idle("v2", "asks for nothing")
    if args.family in FLOW:
        args.idle("v_parameterization", "the family predicts a flow")
        args.settle("ae", {"model.vae": args.value("ae") or None})
        args.idle("vae", "the family reads ae")
    elif "v_parameterization" in args:
        args.settle(
            "v_parameterization", {"model.prediction": ["epsilon", "v_prediction"][args.value("v_parameterization")]}
        )
        args.idle("ae", "only FLUX reads it")
    else:
        args.idle("ae", "only FLUX reads it")


def _name(args: Arguments) -> None:
    given = str(args.value("output_name") or "")
    name = _NAME.sub("_", given).lstrip(".- ")[:100] or None
    how = "" if name == given else "a run's name has letters, digits, dots, dashes, spaces and underscores"
    if "output_name" in args and not given:
        args.idle("output_name", "empty: the run is named after its data")
    elif "output_name" in args:
        args.settle("output_name", {"run.name": name}, how)
    seed = args.value("seed")
    if seed is None:
        args.idle("seed", "absent")
    elif not 0 <= seed <= MAX_SEED:
        args.wrong("seed", f"0 to {MAX_SEED}")
    else:
        args.settle("seed", {"run.seed": seed})


def _network(args: Arguments) -> None:
    module = str(args.value("network_module") or "")
    algorithm = str(args.value("network_args.algo") or "").lower()
    kind = _adapter(args, module, algorithm)
    rank = args.value("network_dim")
    args.settle("network_dim", {"network.rank": rank})
    alpha = args.value("network_alpha")
    if alpha == 0:
        args.settle("network_alpha", {"network.alpha": float(rank)}, "0 means as the rank")
    else:
        args.settle("network_alpha", {"network.alpha": alpha})
    dropout = args.value("network_dropout")
    rank_dropout = args.value("network_args.rank_dropout")
    if dropout:
        if not rank_dropout:
            args.idle("network_args.rank_dropout", "asks for nothing")
        how = "it falls on the adapter's input here, on the rank's activations there"
        args.settle("network_dropout", {"network.dropout": dropout}, how)
        args.refuse("network_args.rank_dropout", "network.dropout is the only dropout here, and network_dropout set it")
    elif rank_dropout:
        args.settle(
            "network_args.rank_dropout", {"network.dropout": rank_dropout}, "it falls on the adapter's input here"
        )
        args.idle("network_dropout", "asks for nothing")
    else:
        args.settle("network_dropout", {"network.dropout": 0.0} if "network_dropout" in args else {})
        args.idle("network_args.rank_dropout", "asks for nothing")
    conv = int(args.value("network_args.conv_dim") or 0)
    lycoris = "lycoris" in module
    flow = args.family in FLOW
    if "network_args.conv_dim" in args:
        if flow:
            args.idle("network_args.conv_dim", "the family has no convolutions")
        else:
            args.settle("network_args.conv_dim", {"network.conv_rank": conv})
    if conv and not flow:
        alpha = args.value("network_args.conv_alpha")
        alpha = 1.0 if alpha is None else alpha
        how = "" if alpha else "0 means as the rank"
        args.settle("network_args.conv_alpha", {"network.conv_alpha": alpha or float(conv)}, how)
        if "network_args.conv_alpha" not in args:
            args.ledger.assumed(args.name("network_args.conv_alpha"), 1.0, {"network.conv_alpha": 1.0})
    else:
        args.idle("network_args.conv_alpha", "it goes with conv_dim")
    preset = str(args.value("network_args.preset") or "")
    targets = "with_conv" if conv and not flow else "kohya"
    if lycoris and preset and preset != "full":
        targets = PRESETS.get(preset, targets)
        args.settle("network_args.preset", {}, f"network.targets = {targets} is nearest")
    elif lycoris and kind:
        args.settle(
            "network_args.preset", {}, f"network.targets = {targets}: every layer of the blocks, edges left out"
        )
    else:
        args.idle("network_args.preset", "only LyCORIS reads it")
    args.ledger.values["network.targets"] = targets
    args.ledger.origin["network.targets"] = "network_module"


def _adapter(args: Arguments, module: str, algorithm: str) -> str:
    """Book network_module and algo; the adapter's type of ours, or "" where there is none."""
    tail = module.rpartition(".")[2].lower()
    if "lycoris" in module:
        kind = ALGORITHMS.get(algorithm or "locon", "")
    elif tail in ("loha", "lokr"):
        kind = tail
    else:
        kind = "lora" if tail in ("", "lora", "lora_flux", "lora_sd3", "lora_fa") else ""
    if args.value("network_args.dora_wd"):
        if kind == "lora":
            kind = "dora"
            args.settle("network_args.dora_wd", {"network.type": "dora"})
        else:
            args.refuse("network_args.dora_wd", "weight decomposition goes with plain LoRA alone here")
    else:
        args.idle("network_args.dora_wd", "asks for nothing")
    name = algorithm if "lycoris" in module else tail
    if not kind:
        remedy = "Choose LoRA, DoRA, LoHa or LoKr there, or set network.type here."
        where = "network_args.algo" if "lycoris" in module and "network_args.algo" in args else "network_module"
        args.refuse(where, f"{name} is no adapter of ours: lora, dora, loha, lokr. {remedy}")
        args.booked |= {"network_module", "network_args.algo"}
        if where != "network_module" and "network_module" in args:
            args.ledger.mapped(args.name("network_module"), module, {})
        return ""
    how = "the down weights are trained too" if tail == "lora_fa" else ""
    if "lycoris" in module and kind == "lora":
        how = "as sd-scripts' own LoRA, with convolutions where they have a rank"
    if "network_args.algo" in args:
        args.settle("network_args.algo", {"network.type": kind}, how)
        args.settle("network_module", {}, how)
    else:
        args.settle("network_module", {"network.type": kind}, how)
    return kind


def _rates(args: Arguments) -> None:
    base = args.value("learning_rate")
    denoiser = args.value("unet_lr")
    denoiser = base if denoiser is None else denoiser
    given = [_rate(args, item) for item in args.value("text_encoder_lr") or []]
    if None in given:
        return
    only_text = bool(args.value("network_train_text_encoder_only"))
    train = not args.value("network_train_unet_only")
    if only_text:
        how = "the denoiser's rate is 0, so it learns nothing"
        args.settle("network_train_text_encoder_only", {"optimizer.learning_rate": 0.0}, how)
        denoiser = 0.0
        args.booked.add("unet_lr")
        if "unet_lr" in args:
            args.ledger.idle(args.name("unet_lr"), args.value("unet_lr"), "the text encoders alone are trained")
    else:
        args.idle("network_train_text_encoder_only", "asks for nothing")
    args.settle("network_train_unet_only", {"text_encoder.train": train})
    if not only_text:
        if "unet_lr" in args:
            args.settle("unet_lr", {"optimizer.learning_rate": denoiser})
        args.booked.add("unet_lr")
    fallback = train and not given and base != denoiser
    if "unet_lr" in args and not fallback and "learning_rate" in args and base != denoiser:
        args.idle("learning_rate", "every part has a rate of its own")
    else:
        became = {} if only_text else {"optimizer.learning_rate": denoiser}
        if fallback:
            became["text_encoder.learning_rate"] = base
        args.settle("learning_rate", became)
    _text_rates(args, given, train)
    ratio = args.value("network_args.loraplus_lr_ratio")
    unet = args.value("network_args.loraplus_unet_lr_ratio")
    text = args.value("network_args.loraplus_text_encoder_lr_ratio")
    if unet:
        how = "one ratio for all parts" if text != unet else ""
        args.settle(
            "network_args.loraplus_unet_lr_ratio", {"optimizer.lora_plus_ratio": unet}, how or "one for all parts"
        )
        args.idle("network_args.loraplus_lr_ratio", "loraplus_unet_lr_ratio wins")
    else:
        args.settle("network_args.loraplus_lr_ratio", {"optimizer.lora_plus_ratio": ratio} if ratio else {})
        args.idle("network_args.loraplus_unet_lr_ratio", "asks for nothing")
    if text:
        args.settle(
            "network_args.loraplus_text_encoder_lr_ratio", {}, "one ratio for all parts: optimizer.lora_plus_ratio"
        )
    else:
        args.idle("network_args.loraplus_text_encoder_lr_ratio", "asks for nothing")


def _text_rates(args: Arguments, given: list[Any], train: bool) -> None:
    if not given:
        args.idle("text_encoder_lr", "asks for nothing")
    elif not train:
        args.idle("text_encoder_lr", "the text encoders are not trained")
    else:
        became = dict(zip(("text_encoder.learning_rate", "text_encoder.learning_rate_2"), given, strict=False))
        if args.family in ("sd15", "flux") and len(given) > 1:
            became.pop("text_encoder.learning_rate_2")
        how = "T5 is not trained" if args.family == "flux" and any(given[1:]) else ""
        args.settle("text_encoder_lr", became, how)


def _rate(args: Arguments, item: Any) -> float | None:
    try:
        rate = float(item)
    except (TypeError, ValueError):
        rate = math.nan
    if isinstance(item, bool) or not math.isfinite(rate):
        args.wrong("text_encoder_lr", "one number, or one for each text encoder")
        return None
    return rate


def _optimizer(args: Arguments) -> None:
    name = str(args.value("optimizer_type") or "")
    for flag, meant in (("use_8bit_adam", "AdamW8bit"), ("use_lion_optimizer", "Lion")):
        if args.value(flag):
            name = meant
            args.settle(flag, {})
        else:
            args.idle(flag, "asks for nothing")
    pairs: dict[str, Any] = {}
    for item in args.value("optimizer_args") or []:
        option, equals, value = str(item).partition("=")
        if equals and option.isidentifier():
            pairs[option] = optimizers.literal(value)
        else:
            args.wrong("optimizer_args", "entries such as weight_decay=0.01")
            return
    found = optimizers.read(name, pairs)
    if found is None:
        known = ", ".join(optimizers.NAMES.values())
        args.refuse("optimizer_type", f"no such optimizer here: {known}. AdamW takes its place")
        args.idle("optimizer_args", f"they are of {name}")
        return
    own = {"optimizer.name": found.settings.pop("optimizer.name")}
    if "optimizer_args" in args:
        args.settle("optimizer_type", own, "; ".join(found.notes))
        why = "; ".join(f"{option}: not {allowed}" for option, allowed in found.dropped.items())
        args.settle("optimizer_args", found.settings, why)
    else:
        args.settle("optimizer_type", own | found.settings, "; ".join(found.notes))


def _schedule(args: Arguments) -> None:
    name = str(args.value("lr_scheduler") or "constant").lower()
    warmup = args.value("lr_warmup_steps") or 0.0
    known = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
    near = {
        "cosine_with_min_lr": "cosine",
        "inverse_sqrt": "polynomial",
        "warmup_stable_decay": "constant_with_warmup",
        "piecewise_constant": "constant",
    }
    if name in known:
        args.settle("lr_scheduler", {"schedule.name": name})
    elif name in near or name.startswith("adafactor"):
        ours = near.get(name, "constant_with_warmup" if warmup else "constant")
        args.settle("lr_scheduler", {"schedule.name": ours}, f"{ours} is nearest")
    else:
        args.wrong("lr_scheduler", ", ".join(known))
    if not warmup:
        args.settle("lr_warmup_steps", {"schedule.warmup_steps": 0.0} if "lr_warmup_steps" in args else {})
    elif name == "constant":
        why = "sd-scripts ends with an error on warm-up of a constant rate; constant_with_warmup is what has one"
        args.refuse("lr_warmup_steps", why)
    else:
        args.settle("lr_warmup_steps", {"schedule.warmup_steps": warmup})
    power = args.value("lr_scheduler_power")
    if power == 0:
        how = "0 would keep the rate constant; 1, which Kohya takes for a zero, is used"
        args.settle("lr_scheduler_power", {"schedule.power": 1.0}, how)
    cycles = args.value("lr_scheduler_num_cycles")
    if cycles == 0:
        args.settle("lr_scheduler_num_cycles", {"schedule.cycles": 1}, "0 is the default, 1")


def _length(args: Arguments) -> None:
    steps, epochs = args.value("max_train_steps"), args.value("max_train_epochs")
    if epochs:
        args.settle("max_train_epochs", {"training.epochs": epochs})
        args.idle("max_train_steps", "max_train_epochs wins")
    else:
        args.idle("max_train_epochs", "asks for nothing")
        args.settle("max_train_steps", {"training.steps": steps})


def _saving(args: Arguments) -> None:
    every = args.value("save_every_n_steps") or 0
    window, count = args.value("save_last_n_steps"), args.value("save_last_n_epochs")
    by_steps = window if window is not None and (every or not count) else None
    if by_steps is not None and every:
        keep = by_steps // every + 1
        how = "" if by_steps % every == 0 else f"a window of {by_steps} steps holds {keep} checkpoints"
        args.settle("save_last_n_steps", {"saving.keep": keep}, how)
    else:
        args.idle("save_last_n_steps", "it goes with save_every_n_steps")
        by_steps = None
    if count and by_steps is None:
        args.settle("save_last_n_epochs", {"saving.keep": count})
    elif count:
        args.settle("save_last_n_epochs", {}, "saving.keep counts the checkpoints of steps and of epochs together")
    else:
        args.idle("save_last_n_epochs", "asks for nothing")
        if by_steps is None:
            args.ledger.assumed(args.name("save_last_n_epochs"), None, {"saving.keep": 0}, "all are kept")
    if str(args.value("save_model_as")) == "safetensors":
        args.settle("save_model_as", {})
    else:
        args.settle("save_model_as", {}, "safetensors is the only format written: it cannot run code")


def _precision(args: Arguments) -> None:
    both, unet = bool(args.value("fp8_base")), bool(args.value("fp8_base_unet"))
    if both and args.family not in FLOW:
        args.settle("fp8_base", {"precision.base": "fp8"}, "the denoiser alone is stored in fp8")
        args.idle("fp8_base_unet", "fp8_base includes it")
    elif both:
        args.settle("fp8_base", {"precision.base": "fp8"})
        args.idle("fp8_base_unet", "fp8_base includes it")
    else:
        args.settle("fp8_base", {} if unet else {"precision.base": "full"} if "fp8_base" in args else {})
        args.settle("fp8_base_unet", {"precision.base": "fp8"} if unet else {})
    if str(args.value("mixed_precision")).lower() == "fp8":
        args.settle("mixed_precision", {"precision.mixed": "bf16"}, "arithmetic in bf16 is nearest")
    if args.value("dynamo_backend") in ("inductor", "no", "", None):
        args.idle("dynamo_backend", "inductor compiles where memory.compile is on")
    xformers, sdpa, slow = (bool(args.value(name)) for name in ("xformers", "sdpa", "mem_eff_attn"))
    chosen = "mem_eff_attn" if slow else "xformers" if xformers else "sdpa" if sdpa else ""
    ours = {"xformers": "xformers", "sdpa": "sdpa", "mem_eff_attn": "native"}
    for name in ("mem_eff_attn", "xformers", "sdpa"):
        if name == chosen:
            how = "torch's own attention in slices" if name == "mem_eff_attn" else ""
            if name == "xformers" and args.family in FLOW:
                args.settle(name, {"memory.attention": "sdpa"}, "the family always uses torch's attention there")
            else:
                args.settle(name, {"memory.attention": ours[name]}, how)
        elif name == "sdpa" and not chosen and "sdpa" in args:
            args.settle(name, {"memory.attention": "native"})
        else:
            args.idle(name, "asks for nothing" if not args.value(name) else f"{chosen} wins")


def _cache(args: Arguments) -> None:
    for what, plain in (("latents", "cache_latents"), ("text", "cache_text_encoder_outputs")):
        disk = f"{plain}_to_disk"
        on = bool(args.value(plain) or args.value(disk))
        if plain in args or what == "latents":
            args.settle(plain, {f"cache.{what}": on})
        args.booked.add(plain)
        if args.value(disk):
            args.settle(
                disk, {f"cache.{what}": True}, "the cache is always on disk, keyed by content, away from the pictures"
            )
        else:
            args.idle(disk, "asks for nothing")


DEAD_ON_FLOW = {
    "noise_offset": "sd-scripts ignores it on this family; here it takes effect: noise.offset = 0 is what it did there",
    "adaptive_noise_scale": "sd-scripts ignores it on this family; here it takes effect",
    "multires_noise_iterations": "sd-scripts ignores it on this family; here it takes effect: 0 is what it did there",
    "multires_noise_discount": "",
    "zero_terminal_snr": "without effect there and here: the flow's last step is pure noise already",
    "min_timestep": "sd-scripts' FLUX ignores it; here it takes effect: 0 is what it did there",
    "max_timestep": "sd-scripts' FLUX ignores it; here it takes effect: 1000 is what it did there",
    "min_snr_gamma": "without effect there and here: a flow-matching loss has no SNR weighting",
    "debiased_estimation_loss": "without effect there and here: a flow-matching loss has no SNR weighting",
    "scale_v_pred_loss_like_noise_pred": "without effect there and here: the family predicts a flow",
    "v_pred_like_loss": "without effect there and here: the family predicts a flow",
}


def _noise(args: Arguments) -> None:
    """Options of Stable Diffusion that files for other families hold as well."""
    for argument, how in DEAD_ON_FLOW.items():
        key, value = all_keys()[argument], args.value(argument)
        if args.family in FLOW and how and not key.asks_nothing(value) and value != 1000 and argument in args:
            args.settle(argument, {key.to: value}, how)
        else:
            args.plain(argument)


def _levels(args: Arguments) -> None:
    """How FLUX draws its noise levels; Stable Diffusion draws them uniformly and reads none of these."""
    names = ("timestep_sampling", "discrete_flow_shift", "sigmoid_scale", "weighting_scheme", "logit_mean", "logit_std")
    if args.family not in FLOW:
        for name in (*names, "model_prediction_type", "guidance_scale"):
            args.idle(name, "only flow-matching families read it")
        if args.family:
            args.ledger.values["noise.timesteps"] = "uniform"
            args.ledger.origin["noise.timesteps"] = "the script"
        return
    kind = str(args.value("timestep_sampling"))
    shift, scheme = args.value("discrete_flow_shift"), str(args.value("weighting_scheme"))
    mean, deviation = args.value("logit_mean"), args.value("logit_std")
    if kind in ("uniform", "sigmoid", "shift", "flux_shift"):
        args.settle("timestep_sampling", {"noise.timesteps": kind})
        args.settle("sigmoid_scale", {"noise.sigmoid_scale": args.value("sigmoid_scale")})
        if kind == "shift":
            args.settle("discrete_flow_shift", {"noise.shift": shift})
        else:
            args.idle("discrete_flow_shift", f"{kind} does not read it")
        for name in ("weighting_scheme", "logit_mean", "logit_std"):
            args.idle(name, f"{kind} does not read it")
    elif kind == "sigma":
        if not shift or shift <= 0:
            args.wrong("discrete_flow_shift", "a number above 0")
            return
        if scheme == "logit_normal":
            args.settle("timestep_sampling", {"noise.timesteps": "logit_normal"})
            args.settle("weighting_scheme", {})
            args.settle("logit_std", {"noise.logit_std": deviation})
            became = {"noise.logit_mean": mean + math.log(shift)}
            args.settle("logit_mean", became)
            args.settle("discrete_flow_shift", {})
        elif shift == 1 and scheme in SIGMA:
            args.settle("timestep_sampling", {"noise.timesteps": "uniform"})
            args.settle("weighting_scheme", {})
            args.settle("discrete_flow_shift", {})
        else:
            became = {"noise.timesteps": "logit_normal", "noise.logit_mean": round(math.log(shift), 4)}
            became |= {"noise.logit_std": LOGISTIC}
            how = f"uniform levels shifted by {shift:g} are, within a hundredth, logit-normal ones"
            args.settle("timestep_sampling", became, how)
            args.settle("discrete_flow_shift", {}, "it is in noise.logit_mean")
            extra = "" if scheme in SIGMA else f"{scheme} is drawn as uniform, and weighs no loss"
            args.settle("weighting_scheme", {}, extra)
        for name in ("logit_mean", "logit_std"):
            if name not in args.booked:
                args.idle(name, f"{scheme} does not read it")
        args.idle("sigmoid_scale", "sigma does not read it")
    else:
        args.wrong("timestep_sampling", "sigma, uniform, sigmoid, shift, flux_shift")
    if args.value("model_prediction_type") == "raw":
        args.settle("model_prediction_type", {})
    else:
        how = "raw is used: it alone compares the prediction with its target, noise minus image"
        args.settle("model_prediction_type", {}, how)
    args.settle("guidance_scale", {"noise.guidance": args.value("guidance_scale")})


def _loss(args: Arguments) -> None:
    kind = str(args.value("loss_type"))
    if kind == "l1":
        how = "smooth_l1 with huber_c 0.001 is the absolute difference but for the smallest ones"
        args.settle(
            "loss_type", {"loss.type": "smooth_l1", "loss.huber_c": 0.001, "loss.huber_schedule": "constant"}, how
        )
        args.idle("huber_c", "l1 does not read it")
        args.idle("huber_schedule", "l1 does not read it")
    else:
        args.settle("loss_type", {"loss.type": kind})


def _samples(args: Arguments) -> None:
    steps, epochs = args.value("sample_every_n_steps") or 0, args.value("sample_every_n_epochs") or 0
    if epochs:
        how = "samples follow steps here; the plan prints the steps of an epoch, for sampling.every_steps"
        args.settle("sample_every_n_epochs", {"sampling.every_steps": steps or 100}, how)
        args.idle("sample_every_n_steps", "sample_every_n_epochs wins")
    else:
        args.idle("sample_every_n_epochs", "asks for nothing")
        args.settle("sample_every_n_steps", {"sampling.every_steps": steps} if "sample_every_n_steps" in args else {})
    sampler = str(args.value("sample_sampler"))
    if args.family in FLOW:
        args.idle("sample_sampler", "the family is sampled by its own Euler method")
    elif sampler in SAMPLERS:
        args.settle("sample_sampler", {"sampling.sampler": SAMPLERS[sampler]})
    elif sampler in NEAR_SAMPLERS:
        args.settle(
            "sample_sampler", {"sampling.sampler": NEAR_SAMPLERS[sampler]}, f"{NEAR_SAMPLERS[sampler]} is nearest"
        )
    else:
        args.wrong("sample_sampler", ", ".join([*SAMPLERS, *NEAR_SAMPLERS]))
    if "sample_prompts" in args:
        path = args.value("sample_prompts")
        args.settle("sample_prompts", {"sampling.prompts_file": path or None})
        if not path:
            return
        flow = args.family in FLOW
        # What a prompt takes there that says nothing itself.
        became = {"sampling.steps": 20 if flow else 30, "sampling.guidance": 1.0 if flow else 7.5, "sampling.size": 512}
        args.ledger.assumed(f"{args.name('sample_prompts')}: --s --l --w --h", "", became)


def _records(args: Arguments) -> None:
    given = str(args.value("log_with") or "")
    project = str(args.value("log_tracker_name") or "")
    wandb = given in ("wandb", "all")
    if given and given not in ("tensorboard", "wandb", "all"):
        args.wrong("log_with", "tensorboard, wandb, all")
        return
    if "log_with" in args:
        became: dict[str, Any] = {"logging.tensorboard": given != "wandb"}
        if wandb and not project:
            became["logging.wandb_project"] = "network_train"
        args.settle("log_with", became)
    if wandb and project:
        args.settle("log_tracker_name", {"logging.wandb_project": project})
    else:
        args.idle("log_tracker_name", "it goes with log_with wandb")
    args.booked |= {"log_with"}
