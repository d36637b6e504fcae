"""From OneTrainer's configuration to our settings, part by part."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainpilot.dialects._account import Item, Ledger
from trainpilot.dialects._keys import WAYS, book, take
from trainpilot.dialects._text import from_json
from trainpilot.dialects.onetrainer.names import (
    FILTERS,
    IDLE,
    MODELS,
    NEAR_OPTIMIZERS,
    OPTIMIZERS,
    SCHEDULES,
    STORAGE,
    VERSION,
    keys,
)
from trainpilot.dialects.sd_scripts import optimizers
from trainpilot.dialects.sd_scripts.arguments import family_named
from trainpilot.errors import PilotError


class Reader:
    """One configuration while it is read."""

    def __init__(self, tree: Mapping[str, Any], ledger: Ledger, nearby: Callable[[str], str | None]) -> None:
        self.ledger, self.nearby = ledger, nearby
        self.done: set[str] = set()
        model = str(tree.get("model_type", "STABLE_DIFFUSION_15"))
        if model not in MODELS:
            raise PilotError("model_type", model, ", ".join(MODELS), "Train one of these families here.")
        self.family = family_named(MODELS[model], "model_type")
        self.part = "transformer" if self.family in ("flux", "sd3") else "unet"
        self.params = {k: v for k, v in _table(tree.get("optimizer")).items() if k not in ("optimizer", "__version")}
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            if name in (self.part, "text_encoder", "text_encoder_2", "vae") and isinstance(value, dict):
                flat |= {f"{'unet' if name == self.part else name}.{key}": leaf for key, leaf in value.items()}
            elif name == "optimizer" and isinstance(value, dict):
                flat |= {"optimizer.optimizer": value.get("optimizer", "ADAMW")}
            else:
                flat[name] = value
        idle = {name: why for name in flat if name not in keys() and (why := _idle(name))}
        for name, why in idle.items():
            if name != "__version" or tree[name] == VERSION:
                ledger.idle(self._shown(name), flat[name] if name != "secrets" else "(not shown)", why)
        self.given = take(keys(), {name: value for name, value in flat.items() if name not in idle}, ledger)

    def _shown(self, name: str) -> str:
        return f"{self.part}.{name[5:]}" if name.startswith("unet.") else name

    def value(self, name: str) -> Any:
        return self.given.get(name, keys()[name].default)

    def settle(self, name: str, became: Mapping[str, Any], how: str = "") -> None:
        """Book a key: mapped, approximated where `how` says so, or assumed where it is absent."""
        if name in self.done:
            return
        self.done.add(name)
        shown = self._shown(name)
        if name not in self.given:
            if became:
                self.ledger.assumed(shown, self.value(name), became, how)
        elif how:
            self.ledger.approximated(shown, self.given[name], how, became)
        else:
            self.ledger.mapped(shown, self.given[name], became)

    def idle(self, name: str, why: str) -> None:
        if name in self.given and name not in self.done:
            self.ledger.idle(self._shown(name), self.given[name], why)
        self.done.add(name)

    def read(self) -> None:
        if self.value("training_method") != "LORA":
            why = "a LoRA is trained here; OneTrainer's own default is another method"
            self.settle("training_method", {}, why)
        self.settle("training_method", {})
        self.settle("model_type", {"model.family": self.family})
        destination = Path(str(self.given.get("output_model_destination") or "")).stem
        name = re.sub(r"[^\w.\- ]+", "_", destination).lstrip(".- ")[:100]
        self.settle("output_model_destination", {"run.name": name} if name else {}, "the name of the file alone")
        self.settle(
            "output_model_format", {"saving.diffusers": self.given.get("output_model_format") == "DIFFUSERS_LORA"}
        )
        self._network()
        self._rates()
        self._schedule()
        self._levels()
        self._loss()
        self._rest()
        self._data()
        for key_name, key in keys().items():
            if key_name in self.done:
                continue
            if key_name in self.given:
                book(key, self.given[key_name], self.ledger, self._shown(key_name))
            elif key.to and key.default is not None and not key.no and not key.by:
                self.ledger.assumed(self._shown(key_name), key.default, {key.to: WAYS[key.way].read(key.default)})

    def _network(self) -> None:
        kind = str(self.value("peft_type"))
        types = {"LORA": "dora" if self.value("lora_decompose") else "lora", "LOHA": "loha", "LOKR": "lokr"}
        if kind in types:
            self.settle("peft_type", {"network.type": types[kind]})
        else:
            self.ledger.refused("peft_type", kind, "no adapter of ours: LORA, LOHA, LOKR")
            self.done.add("peft_type")
        self.settle("lora_decompose", {})
        dropout = self.value("dropout_probability")
        how = "it falls on the adapter's input here, on the rank's activations there" if dropout else ""
        self.settle("dropout_probability", {"network.dropout": dropout}, how)
        pattern, preset = str(self.value("layer_filter") or ""), str(self.value("layer_filter_preset"))
        if not pattern and preset != "full":
            pattern = FILTERS.get(preset, "")
            how = "OneTrainer's interface fills layer_filter from it; its command line would adapt every layer"
            self.settle("layer_filter_preset", {}, how)
        self.idle("layer_filter_preset", "layer_filter says it")
        flow = self.part == "transformer"
        targets = {"attn": "attention" if flow else "default", "attentions": "kohya", "transformer_block": "kohya"}
        everything = "all_linear" if flow else "with_conv"
        ours = targets.get(pattern, everything if not pattern else "kohya")
        known = pattern in targets or not pattern
        how = "" if known and pattern else f"network.targets = {ours} is nearest"
        self.settle("layer_filter", {"network.targets": ours}, how)
        if not pattern and not flow:
            rank, alpha = self.value("lora_rank"), self.value("lora_alpha")
            self.ledger.values |= {"network.conv_rank": rank, "network.conv_alpha": alpha or None}
        self.idle("layer_filter_regex", "asks for nothing" if known else "the pattern is not taken over")

    def _rates(self) -> None:
        base = self.value("learning_rate")
        rate = self.value("unet.learning_rate")
        rate = base if rate is None else rate
        if not self.value("unet.train"):
            self.settle("unet.train", {"optimizer.learning_rate": 0.0}, "the denoiser's rate is 0")
        else:
            self.settle("unet.train", {})
            self.ledger.values["optimizer.learning_rate"] = rate
        self.settle(
            "learning_rate", {"optimizer.learning_rate": self.ledger.values.get("optimizer.learning_rate", rate)}
        )
        self.settle("unet.learning_rate", {})
        clip = self.given.get("clip_grad_norm", 1.0)
        self.settle("clip_grad_norm", {"optimizer.max_grad_norm": clip or 0.0})
        self._encoders(base)
        name = str(self.value("optimizer.optimizer"))
        ours = OPTIMIZERS.get(name) or NEAR_OPTIMIZERS.get(name) or "adamw"
        how = "" if name in OPTIMIZERS else f"{ours} takes its place"
        params = dict(self.params)
        betas = [params.pop(key, None) for key in ("beta1", "beta2")]
        known = optimizers.KNOWN[optimizers.NAMES[ours].lower()]
        became: dict[str, Any] = {"optimizer.name": ours}
        for path, given, usual in (
            ("optimizer.beta1", betas[0], known.beta1),
            ("optimizer.beta2", betas[1], known.beta2),
            ("optimizer.eps", params.pop("eps", None), known.eps or 1e-8),
            ("optimizer.weight_decay", params.pop("weight_decay", None), known.decay),
        ):
            plain = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
            became[path] = float(given) if plain and ours != "adafactor" else usual
        if ours == "adafactor":
            became |= {"optimizer.beta1": 0.0, "optimizer.eps": 1e-8}
        options = (
            {"d_coef", "d0", "decouple", "use_bias_correction", "safeguard_warmup"} if ours == "prodigy" else set()
        )
        args = {k: v for k, v in params.items() if k in options and v is not None and isinstance(v, (int, float))}
        became["optimizer.args"] = args
        self.settle("optimizer.optimizer", became, how)
        for key, given in params.items():
            if key not in options and given not in (None, False):
                self.ledger.idle(f"optimizer.{key}", given, "the library's own default is used")

    def _encoders(self, base: float) -> None:
        parts = ["text_encoder"] + ["text_encoder_2"] * (self.family == "sdxl")
        trained = [part for part in parts if self.value(f"{part}.train")]
        for part in ("text_encoder", "text_encoder_2"):
            if part not in parts:
                for key in ("train", "learning_rate", "dropout_probability"):
                    why = "T5 is not trained" if self.family == "flux" else "the family has no such encoder"
                    self.idle(f"{part}.{key}", why)
                continue
            how = "" if len(trained) in (0, len(parts)) else "text encoders are trained together or not at all"
            self.settle(f"{part}.train", {"text_encoder.train": bool(trained)}, how)
            rate = self.value(f"{part}.learning_rate")
            path = "text_encoder.learning_rate" + ("_2" if part.endswith("2") else "")
            self.settle(f"{part}.learning_rate", {path: rate} if rate is not None and trained else {})
            dropout = self.value(f"{part}.dropout_probability")
            if dropout and part == "text_encoder":
                how = "whole captions are dropped for all text encoders together, as an empty caption"
                self.settle(f"{part}.dropout_probability", {"datasets.captions.dropout_rate": dropout}, how)
            self.settle(f"{part}.dropout_probability", {}, "captions are dropped for all together" if dropout else "")
        if trained:
            self.ledger.values.setdefault("text_encoder.learning_rate", base)
        unit, after = (
            self.value("text_encoder.stop_training_after_unit"),
            self.value("text_encoder.stop_training_after"),
        )
        stops = trained and after is not None and unit in ("EPOCH", "STEP")
        if stops and unit == "STEP":
            many = max(1, self.value("gradient_accumulation_steps"))
            how = "in optimizer steps"
            self.settle("text_encoder.stop_training_after", {"text_encoder.stop_step": after // many}, how)
        elif stops:
            self.settle(
                "text_encoder.stop_training_after",
                {},
                "text_encoder.stop_step counts steps: see the plan's steps of an epoch",
            )
        self.idle("text_encoder.stop_training_after", "asks for nothing")
        self.idle("text_encoder.stop_training_after_unit", "it goes with stop_training_after")
        skip = self.value("text_encoder_layer_skip")
        if self.family == "sd15":
            self.settle("text_encoder_layer_skip", {"text_encoder.clip_skip": skip + 1})
        self.idle("text_encoder_layer_skip", "the family reads one layer always")
        if self.family != "flux":
            self.idle("text_encoder_2_sequence_length", "the family has no T5")
            self.idle("unet.guidance_scale", "the family has no embedded guidance")

    def _schedule(self) -> None:
        name = str(self.value("learning_rate_scheduler"))
        warmup = self.value("learning_rate_warmup_steps")
        many = max(1, self.value("gradient_accumulation_steps"))
        steps = 0.0 if warmup <= 0 else min(warmup, 0.99) if warmup <= 1 else float(round(warmup / many))
        ours = SCHEDULES.get(name, "cosine" if "COSINE" in name else "constant")
        if ours == "constant" and steps:
            ours = "constant_with_warmup"
        how = "" if name in SCHEDULES else f"{ours} is nearest; its course there goes down and up"
        self.settle("learning_rate_scheduler", {"schedule.name": ours}, how)
        how = "batches there, steps here" if warmup > 1 and many > 1 else ""
        self.settle("learning_rate_warmup_steps", {"schedule.warmup_steps": steps}, how)
        cycles = self.value("learning_rate_cycles")
        how = "" if cycles == int(cycles) else "whole cycles"
        self.settle("learning_rate_cycles", {"schedule.cycles": max(1, round(cycles))}, how)

    def _levels(self) -> None:
        kind, weight, bias = (self.value(k) for k in ("timestep_distribution", "noising_weight", "noising_bias"))
        shift, dynamic = self.value("timestep_shift"), self.value("dynamic_timestep_shifting")
        if shift <= 0:
            self.ledger.wrong("timestep_shift", shift, "a number above 0")
            return
        if kind == "LOGIT_NORMAL" and dynamic and self.part == "transformer":
            self.settle(
                "timestep_distribution", {"noise.timesteps": "flux_shift"}, "" if not bias else "its mean is 0 here"
            )
            self.settle("dynamic_timestep_shifting", {})
            self.settle("noising_weight", {"noise.sigmoid_scale": weight + 1})
        elif kind == "LOGIT_NORMAL":
            self.settle("timestep_distribution", {"noise.timesteps": "logit_normal"})
            self.settle("noising_weight", {"noise.logit_std": weight + 1})
            self.settle("noising_bias", {"noise.logit_mean": max(-10.0, min(10.0, bias + math.log(shift)))})
            self.settle("timestep_shift", {})
        else:
            how = "" if kind == "UNIFORM" and shift == 1 and not dynamic else "uniform is nearest"
            self.settle("timestep_distribution", {"noise.timesteps": "uniform"}, how)
            if shift != 1:
                self.settle("timestep_shift", {}, "uniform levels are not shifted")
            if dynamic:
                self.settle("dynamic_timestep_shifting", {}, "uniform levels are not shifted")
        for name in ("noising_weight", "noising_bias", "timestep_shift", "dynamic_timestep_shifting"):
            self.idle(name, f"{kind} does not need it")
        zero = "rescale_noise_scheduler_to_zero_terminal_snr"
        if self.value(zero):
            self.settle(zero, {"noise.zero_terminal_snr": True, "model.prediction": "v_prediction"})
        self.idle(zero, "asks for nothing")

    def _loss(self) -> None:
        strengths = {name: self.value(f"{name}_strength") for name in ("mse", "mae", "log_cosh", "huber")}
        most = max(strengths, key=lambda name: strengths[name])
        ours = {"mse": "l2", "mae": "smooth_l1", "log_cosh": "huber", "huber": "huber"}[most]
        for name, strength in strengths.items():
            key = f"{name}_strength"
            if name == most:
                how = "" if most == "mse" and strength == 1 else "one distance, at full strength"
                became: dict[str, Any] = {"loss.type": ours}
                if most != "mse":
                    became |= {"loss.huber_schedule": "constant"}
                self.settle(key, became, how)
            elif strength:
                self.settle(key, {}, f"one distance alone: {ours}")
            self.idle(key, "asks for nothing")
        delta = min(10.0, max(1e-6, self.value("huber_delta")))
        if most in ("huber", "mae", "log_cosh"):
            self.settle(
                "huber_delta", {"loss.huber_c": delta if most != "mae" else 0.001}, "the bend of our Huber loss"
            )
        self.idle("huber_delta", "only huber reads it")
        kind, gamma = self.value("loss_weight_fn"), self.value("loss_weight_strength")
        if kind == "MIN_SNR_GAMMA":
            self.settle("loss_weight_fn", {})
            self.settle("loss_weight_strength", {"loss.min_snr_gamma": gamma})
        elif kind == "DEBIASED_ESTIMATION":
            self.settle("loss_weight_fn", {"loss.debiased": True})
        elif kind == "CONSTANT":
            self.settle("loss_weight_fn", {})
        else:
            self.ledger.refused("loss_weight_fn", kind, "only min-SNR and debiased weighting are here")
            self.done.add("loss_weight_fn")
        self.idle("loss_weight_strength", f"{kind} does not read it")

    def _rest(self) -> None:
        kind = str(self.value("unet.weight_dtype"))
        plain = kind in ("FLOAT_16", "BFLOAT_16", "FLOAT_32", "NONE")
        base = "full" if plain else STORAGE.get(kind, "int8")
        self.settle(
            "unet.weight_dtype", {"precision.base": base}, "" if plain or kind in STORAGE else f"{base} is nearest"
        )
        how = "" if self.value("attention_mechanism") in ("SDP", "FLASH") else "torch's kernels"
        ours = "flash" if self.value("attention_mechanism") == "FLASH" else "sdpa"
        self.settle("attention_mechanism", {"memory.attention": ours}, how)
        on = self.value("ema") != "OFF"
        self.settle("ema", {} if on else {"training.ema_decay": 0.0})
        if on:
            self.settle("ema_decay", {"training.ema_decay": self.value("ema_decay")})
        for name in ("ema_decay", "ema_update_step_interval"):
            if not on:
                self.idle(name, "ema is OFF")
        for what, path in (("sample_after", "sampling.every_steps"), ("save_every", "saving.every_steps")):
            self._interval(what, path)
        if self.value("rolling_backup"):
            self.settle("rolling_backup", {})
            self.settle("rolling_backup_count", {"saving.keep": self.value("rolling_backup_count")})
        else:
            self.settle("rolling_backup", {"saving.keep": 0} if "rolling_backup" in self.given else {})
        self.idle("rolling_backup_count", "rolling_backup is off")
        self._samples()

    def _interval(self, what: str, path: str) -> None:
        every, unit = self.value(what), str(self.value(f"{what}_unit"))
        many = max(1, self.value("gradient_accumulation_steps"))
        if unit == "EPOCH" and path == "saving.every_steps":
            self.settle(what, {"saving.every_epochs": every})
        elif unit == "STEP":
            how = "" if every % many == 0 else "batches there, steps here"
            self.settle(what, {path: max(1, every // many) if every else 0}, how)
        elif unit in ("NEVER",) or not every:
            self.settle(what, {path: 0} if what in self.given else {})
        else:
            how = f"{unit.lower()}s are not counted here: every 250 steps"
            self.settle(what, {path: 250}, how)
        self.settle(f"{what}_unit", {})

    def _samples(self) -> None:
        rows = self.given.get("samples")
        file = str(self.given.get("sample_definition_file_name") or "")
        if rows is None and file:
            text = self.nearby(file)
            rows = from_json(text, file) if text is not None else None
        lines = []
        options = {
            "negative_prompt": "n",
            "width": "w",
            "height": "h",
            "seed": "d",
            "diffusion_steps": "s",
            "cfg_scale": "l",
        }
        if self.family == "flux":
            options["cfg_scale"] = "g"
        for number, row in enumerate(rows if isinstance(rows, list) else []):
            if not isinstance(row, dict) or not isinstance(row.get("prompt", ""), str):
                self.ledger.wrong(f"samples.{number}", row, "a table with a prompt")
                continue
            if row.get("enabled", True):
                line = " ".join(row.get("prompt", "").split())
                for key, option in options.items():
                    if row.get(key) not in (None, "") and not isinstance(row[key], (dict, list)):
                        line += f" --{option} {row[key]}"
                lines.append(line)
        if lines:
            self.settle(
                "samples" if self.given.get("samples") is not None else "sample_definition_file_name",
                {"sampling.prompts": lines},
            )
        for name in ("samples", "sample_definition_file_name"):
            self.idle(name, "no samples are there to be read")

    # ---- data

    def _data(self) -> None:
        sizes = [part.strip() for part in str(self.value("resolution")).split(",")]
        try:
            numbers = [[int(side) for side in size.lower().split("x")] for size in sizes]
        except ValueError:
            numbers = []
        if not numbers or any(len(size) not in (1, 2) for size in numbers):
            self.ledger.wrong("resolution", self.value("resolution"), "1024, 512,768,1024 or 1024x768")
            return
        first = numbers[0][0] if len(set(numbers[0])) == 1 else numbers[0]
        how = "" if len(numbers) == 1 else "the first of the sizes; give a folder twice to train it at two sizes"
        self.settle("resolution", {"buckets.resolution": first}, how)
        on = bool(self.value("latent_caching"))
        self.settle("latent_caching", {"cache.latents": on, "cache.text": on})
        self.ledger.values["buckets.algorithm"] = "native"
        rows = self.given.get("concepts")
        file = str(self.given.get("concept_file_name") or "")
        if rows is None and file:
            text = self.nearby(file)
            rows = from_json(text, file) if text is not None else None
        name = "concepts" if self.given.get("concepts") is not None else "concept_file_name"
        if isinstance(rows, list):
            for number, row in enumerate(rows):
                self._concept(row, f"concepts.{number}")
            self.settle(name, {})
        else:
            self.settle(name, {}, "the concepts could not be read: name the folders with --dataset")
        for other in ("concepts", "concept_file_name"):
            self.idle(other, "the other of the two says it")

    def _concept(self, row: Any, where: str) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            self.ledger.wrong(where, row, "a table with a path")
            return
        if not row.get("enabled", True):
            self.ledger.idle(where, row["path"], "not enabled")
            return
        text, image = _table(row.get("text")), _table(row.get("image"))
        repeats = row.get("balancing", 1.0)
        own: dict[str, Any] = {"path": row["path"], "repeats": 1}
        reasons = []
        if isinstance(repeats, (int, float)) and not isinstance(repeats, bool) and math.isfinite(repeats):
            own["repeats"] = max(1, round(repeats)) if row.get("balancing_strategy", "REPEATS") == "REPEATS" else 1
            if own["repeats"] != repeats:
                reasons.append("whole repeats")
        if row.get("type", "STANDARD") != "STANDARD":
            reasons.append(f"{row.get('type')} is trained like any other")
        own["captions.shuffle"] = bool(text.get("enable_tag_shuffling"))
        keep = text.get("keep_tags_count", 1)
        own["captions.keep_tokens"] = keep if isinstance(keep, int) and not isinstance(keep, bool) else 1
        if text.get("tag_dropout_enable") and isinstance(text.get("tag_dropout_probability"), (int, float)):
            own["captions.tag_dropout_rate"] = text["tag_dropout_probability"]
        if isinstance(text.get("tag_delimiter"), str) and text["tag_delimiter"]:
            own["captions.separator"] = text["tag_delimiter"]
        own["captions.wildcards"] = True  # a line is drawn from several there
        own["flip"] = bool(image.get("enable_random_flip"))
        own["random_crop"] = bool(image.get("enable_crop_jitter", True))
        changed = sorted(
            k for k, v in image.items() if v is True and k not in ("enable_random_flip", "enable_crop_jitter")
        )
        if changed:
            reasons.append(f"{', '.join(changed)}: colours and angles are never changed here")
        items = self.ledger.reading.approximated if reasons else self.ledger.reading.mapped
        items.append(Item(where, row["path"], {f"datasets.{k}": v for k, v in own.items()}, "; ".join(reasons)))
        self.ledger.datasets.append(own)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _idle(name: str) -> str:
    found = [start for start in IDLE if name == start or name.startswith(start if start[-1] in "_." else f"{start}.")]
    plain = [
        start for start in IDLE if name.startswith(start) and start in ("debug", "gradient_reduce", "validate_after")
    ]
    best = max([*found, *plain], key=len, default="")
    return IDLE.get(best, "")
