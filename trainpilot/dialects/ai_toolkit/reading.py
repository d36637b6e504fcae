"""From one process of AI Toolkit's job to our settings, part by part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainpilot.dialects._account import Item, Ledger
from trainpilot.dialects._keys import WAYS, Key, book, take
from trainpilot.dialects.ai_toolkit.names import (
    ARCHITECTURES,
    EPS,
    LEVELS,
    OPTIMIZERS,
    QUANTIZED,
    TRANSFORMERS,
    WARMUP,
    keys,
)
from trainpilot.dialects.sd_scripts import optimizers
from trainpilot.dialects.sd_scripts.arguments import family_named
from trainpilot.errors import PilotError


class Job:
    """One process while it is read."""

    def __init__(self, given: dict[str, Any], ledger: Ledger) -> None:
        self.given = given
        self.ledger = ledger
        self.family: str | None = None
        self.done: set[str] = set()

    def value(self, name: str) -> Any:
        return self.given.get(name, keys()[name].default)

    def settle(self, name: str, became: Mapping[str, Any], how: str = "") -> None:
        """Book a key: mapped, approximated where `how` says so, or assumed where it is absent."""
        if name in self.done:
            return
        self.done.add(name)
        if name not in self.given:
            if became:
                self.ledger.assumed(name, self.value(name), became, how)
        elif how:
            self.ledger.approximated(name, self.given[name], how, became)
        else:
            self.ledger.mapped(name, self.given[name], became)

    def idle(self, name: str, why: str) -> None:
        if name in self.given and name not in self.done:
            self.ledger.idle(name, self.given[name], why)
        self.done.add(name)

    def read(self, datasets: Any) -> None:
        self._family()
        self._network()
        self._training()
        self._levels()
        self._precision()
        self._samples()
        self._records()
        self._datasets(datasets)
        for name, key in keys().items():
            if name in self.done or name.startswith("dataset."):
                continue
            if name in self.given:
                book(key, self.given[name], self.ledger)
            elif key.to and key.default is not None and not key.no and not key.by:
                became = {key.to: WAYS[key.way].read(key.default)}
                self.ledger.assumed(name, key.default, became)

    def _family(self) -> None:
        arch = str(self.value("model.arch") or "").partition(":")[0].lower()
        flags = [flag for flag in ("is_flux", "is_xl", "is_v2") if self.value(f"model.{flag}")]
        if not arch:
            arch = {"is_flux": "flux", "is_xl": "sdxl"}.get(flags[0] if flags else "", "sd1")
        if arch not in ARCHITECTURES:
            raise PilotError("model.arch", arch, ", ".join(ARCHITECTURES), "Train one of these families here.")
        self.family = family_named(ARCHITECTURES[arch], "model.arch")
        for flag in ("is_flux", "is_xl", "is_v2"):
            self.idle(
                f"model.{flag}", "model.arch says it today" if "model.arch" in self.given else "it names the family"
            )
        self.settle("model.arch", {"model.family": self.family})
        # The transformers have no such flag, and the base model's own files tell.
        if self.family in TRANSFORMERS:
            self.idle("model.is_v_pred", "the family predicts a flow")

    def _network(self) -> None:
        kind = str(self.value("network.type") or "lora").lower()
        types = {"lora": "lora", "locon": "lora", "lycoris": "lora", "lokr": "lokr", "dora": "dora"}
        if kind in types:
            how = "as LoRA, with convolutions where they have a rank" if kind in ("locon", "lycoris") else ""
            self.settle("network.type", {"network.type": types[kind]}, how)
        else:
            self.ledger.refused("network.type", kind, "no adapter of ours: lora, dora, lokr")
            self.done.add("network.type")
        rank = self.value("network.rank") or self.value("network.linear") or 4
        self.settle("network.linear", {"network.rank": rank} if not self.given.get("network.rank") else {})
        self.settle("network.rank", {"network.rank": rank} if self.given.get("network.rank") else {})
        alpha = self.given.get("network.linear_alpha", self.given.get("network.alpha", 1.0))
        first = "network.linear_alpha" if "network.linear_alpha" in self.given else "network.alpha"
        if self.family in TRANSFORMERS:
            how = "AI Toolkit ignores alpha on transformers and takes the rank" if alpha != rank else ""
            self.settle(first, {"network.alpha": float(rank)}, how)
            for name in ("network.conv", "network.conv_alpha"):
                self.idle(name, "the family has no convolutions")
        else:
            self.settle(first, {"network.alpha": alpha or float(rank)}, "" if alpha else "0 means as the rank")
            conv = self.value("network.conv") or 0
            self.settle("network.conv", {"network.conv_rank": conv})
            if conv:
                self.settle(
                    "network.conv_alpha", {"network.conv_alpha": self.given.get("network.conv_alpha", float(conv))}
                )
        self.idle("network.conv_alpha", "it goes with conv")
        self.idle("network.alpha", "linear_alpha wins")
        dropout = self.value("network.dropout") or 0.0
        how = "it falls on the adapter's input here, on the rank's activations there" if dropout else ""
        self.settle("network.dropout", {"network.dropout": dropout} if "network.dropout" in self.given else {}, how)
        convolved = self.value("network.conv") and self.family not in TRANSFORMERS
        # Every linear layer of the blocks, and the convolutions where they have a rank.
        self.ledger.values["network.targets"] = "with_conv" if convolved else "kohya"
        self._kwargs()

    def _kwargs(self) -> None:
        kwargs = self.given.get("network.network_kwargs")
        self.done.add("network.network_kwargs")
        if kwargs is None:
            return
        left_out = kwargs.get("ignore_if_contains") or []
        others = {
            key: value for key, value in kwargs.items() if key != "ignore_if_contains" and value not in (None, [])
        }
        if others or not isinstance(left_out, list) or not all(isinstance(item, str) for item in left_out):
            why = (
                "of these, only ignore_if_contains is read; network.targets and network.block_ranks choose layers here"
            )
            self.ledger.refused("network.network_kwargs", kwargs, why)
        elif left_out:
            ranks = {re.escape(item): 0 for item in left_out}
            how = "patterns of network.block_ranks leave these layers out; names are those of diffusers"
            self.ledger.approximated("network.network_kwargs", kwargs, how, {"network.block_ranks": ranks})
        else:
            self.ledger.idle("network.network_kwargs", kwargs, "asks for nothing")

    def _training(self) -> None:
        self.settle("train.steps", {"training.steps": self.value("train.steps")})
        many = self.value("train.gradient_accumulation") or 1
        legacy = self.value("train.gradient_accumulation_steps") or 1
        how = "gradients are summed there and averaged here: max_grad_norm is felt differently" if many > 1 else ""
        self.settle("train.gradient_accumulation", {"training.gradient_accumulation": many}, how)
        if legacy != 1:
            why = "there gradients are emptied at every batch, so it does nothing; gradient_accumulation is what works"
            self.idle("train.gradient_accumulation_steps", why)
        self.idle("train.gradient_accumulation_steps", "asks for nothing")
        if self.value("train.train_unet"):
            self.settle("train.train_unet", {})
        else:
            self.settle("train.train_unet", {"optimizer.learning_rate": 0.0}, "the denoiser's rate is 0")
            self.settle(
                "train.lr", {"text_encoder.learning_rate": self.value("train.lr")}, "of the text encoders alone"
            )
        self._optimizer()
        self._schedule()
        on = bool(self.value("train.ema_config.use_ema"))
        decay = self.value("train.ema_config.ema_decay")
        self.settle("train.ema_config.use_ema", {"training.ema_decay": decay if on else 0.0} if not on else {})
        if on:
            self.settle("train.ema_config.ema_decay", {"training.ema_decay": decay})
        self.idle("train.ema_config.ema_decay", "use_ema is off")
        kind = str(self.value("train.loss_type"))
        losses: dict[str, tuple[dict[str, Any], str]] = {"mse": ({"loss.type": "l2"}, "")}
        losses["pseudo_huber"] = (
            {"loss.type": "huber", "loss.huber_c": 0.01, "loss.huber_schedule": "constant"}, "scaled by 2 here"
        )  # fmt: skip
        losses["mae"] = (
            {"loss.type": "smooth_l1", "loss.huber_c": 0.001, "loss.huber_schedule": "constant"},
            "smooth_l1 with huber_c 0.001 is the absolute difference but for the smallest ones",
        )
        became, how = losses.get(kind, ({"loss.type": "l2"}, "not here; the mean square is used"))
        self.settle("train.loss_type", became, how)

    def _optimizer(self) -> None:
        name = str(self.value("train.optimizer")).lower()
        params = self.given.get("train.optimizer_params") or {}
        base = OPTIMIZERS.get(name) or ("prodigy" if name.startswith(("prodigy", "dadapt")) else None)
        how = "" if base == name else f"{base} is nearest"
        if base is None:
            base, how = "adamw", "automatic rates of AI Toolkit's own are not here; AdamW takes its place"
        found = optimizers.read(optimizers.NAMES[base], params)
        assert found is not None  # its name is one of ours
        settings = found.settings
        if "optimizer.eps" in settings:
            settings["optimizer.eps"] = EPS
        own = {"optimizer.name": settings.pop("optimizer.name")}
        rate = self.value("train.lr")
        if base == "prodigy" and rate < 0.1:
            self.settle("train.lr", {"optimizer.learning_rate": 1.0}, "AI Toolkit takes 1 for Prodigy below 0.1")
        notes = "; ".join([how, *found.notes] if how else found.notes)
        if "train.optimizer_params" in self.given:
            self.settle("train.optimizer", own, notes)
            why = "; ".join(f"{option}: not {allowed}" for option, allowed in found.dropped.items())
            why = "; ".join([why, "eps is 1e-6 there whatever is said"][not why :]) if why or "eps" in params else ""
            self.settle("train.optimizer_params", settings, why)
        else:
            self.settle("train.optimizer", own | settings, notes)

    def _schedule(self) -> None:
        name = str(self.value("train.lr_scheduler"))
        params = self.given.get("train.lr_scheduler_params") or {}
        known = ("constant", "cosine", "cosine_with_restarts", "linear", "constant_with_warmup", "polynomial")
        if name in known:
            self.settle("train.lr_scheduler", {"schedule.name": name})
        else:
            self.settle("train.lr_scheduler", {"schedule.name": "constant"}, "constant is nearest")
        warmup = params.get("num_warmup_steps", WARMUP if name == "constant_with_warmup" else 0)
        if isinstance(warmup, bool) or not isinstance(warmup, (int, float)) or warmup < 0:
            self.ledger.wrong("train.lr_scheduler_params.num_warmup_steps", warmup, "0 or more steps")
            warmup = 0
        became = {"schedule.warmup_steps": float(warmup)}
        others = sorted(params.keys() - {"num_warmup_steps", "total_iters"})
        if "train.lr_scheduler_params" in self.given:
            how = f"{', '.join(others)}: not taken" if others else ""
            self.settle("train.lr_scheduler_params", became, how)
        else:
            self.ledger.values |= became

    def _levels(self) -> None:
        name = "train.timestep_type"
        kind = str(self.value(name))
        if self.family not in TRANSFORMERS:
            self.idle(name, "levels are drawn uniformly on this family")
            self.ledger.values["noise.timesteps"] = "uniform"
        elif kind in LEVELS:
            self.settle(name, {"noise.timesteps": LEVELS[kind]})
        elif kind == "shift":
            self.settle(name, {"noise.timesteps": "flux_shift"}, "the shift that follows the size is nearest")
        else:
            self.settle(name, {"noise.timesteps": "sigmoid"}, "sigmoid is nearest")
        if str(self.value("train.content_or_style")) == "balanced":
            self.idle("train.content_or_style", "asks for nothing")
        guidance = self.value("train.cfg_scale")
        if self.family != "flux":
            self.idle("train.bypass_guidance_embedding", "the family has no guidance to pass by")
        if self.value("train.bypass_guidance_embedding") and self.family == "flux":
            self.settle("train.bypass_guidance_embedding", {"noise.guidance": 1.0}, "a guidance of 1 is nearest")
            self.idle("train.cfg_scale", "bypass_guidance_embedding is on")
        elif self.family == "flux":
            self.settle("train.cfg_scale", {"noise.guidance": guidance})
        self.idle("train.cfg_scale", "only read where guidance is trained")
        self.idle("train.bypass_guidance_embedding", "asks for nothing")

    def _precision(self) -> None:
        on, kind = bool(self.value("model.quantize")), str(self.value("model.qtype")).partition("/")[0]
        if on:
            base = QUANTIZED.get(kind, "nf4" if "4" in kind else "fp8")
            how = "" if kind in ("qfloat8", "float8", "int8") else f"{base} is nearest"
            self.settle("model.quantize", {})
            self.settle("model.qtype", {"precision.base": base}, how)
        else:
            self.settle("model.quantize", {"precision.base": "full"})
            self.idle("model.qtype", "quantize is off")
        x, sdp, backend = (self.value(f"train.{name}") for name in ("xformers", "sdp", "attention_backend"))
        chosen = "xformers" if x else "sdpa" if sdp else "flash" if "flash" in str(backend) else "sdpa"
        self.settle("train.xformers", {"memory.attention": "xformers"} if x else {})
        self.settle("train.sdp", {"memory.attention": chosen} if sdp and not x else {})
        if "train.attention_backend" in self.given:
            self.settle("train.attention_backend", {} if x or sdp else {"memory.attention": chosen})

    def _samples(self) -> None:
        every = 0 if self.value("train.disable_sampling") else self.value("sample.sample_every") or 0
        if self.value("train.disable_sampling"):
            self.settle("train.disable_sampling", {}, "sampling.every_steps is 0")
        self.idle("train.disable_sampling", "asks for nothing")
        self.settle("sample.sample_every", {"sampling.every_steps": every})
        size = [self.value("sample.width"), self.value("sample.height")]
        became = {"sampling.size": size[0] if size[0] == size[1] else size}
        self.settle("sample.width", became)
        self.settle("sample.height", became)
        negative = self.value("sample.neg")
        self.settle("sample.neg", {"sampling.negative": negative if isinstance(negative, str) else ""})
        self.idle("sample.sampler", "the family's own method is used: sampling.sampler")
        walk = bool(self.value("sample.walk_seed"))
        if walk:
            self.settle("sample.walk_seed", {})
        elif "sample.walk_seed" in self.given:
            self.settle("sample.walk_seed", {}, "seeds count up from prompt to prompt here; --d in a prompt fixes one")
        guidance = self.value("sample.guidance_scale")
        embedded = self.family == "flux"
        lines = self._prompts(embedded, guidance)
        if embedded:
            how = "FLUX.1 takes it as embedded guidance, which prompts say with --g"
            self.settle("sample.guidance_scale", {"sampling.guidance": 1.0}, how)
        else:
            self.settle("sample.guidance_scale", {"sampling.guidance": float(guidance)})
        source = "sample.samples" if "sample.samples" in self.given else "sample.prompts"
        trigger = str(self.given.get("process.trigger_word") or "")
        lines = [line.replace("[trigger]", trigger).replace("[name]", trigger) for line in lines]
        self.settle(source, {"sampling.prompts": lines} if lines else {})
        self.idle("sample.prompts", "sample.samples wins")
        self.done.add("sample.samples")

    def _prompts(self, embedded: bool, guidance: float) -> list[str]:
        """The prompts of either key as lines of ours."""
        rows = self.given.get("sample.samples", self.given.get("sample.prompts"))
        lines = []
        options = {"neg": "n", "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "guidance_scale": "l"}
        if embedded:
            options["guidance_scale"] = "g"
        for number, row in enumerate(rows if isinstance(rows, list) else []):
            if isinstance(row, str):
                row = {"prompt": row}
            if not isinstance(row, dict) or not isinstance(row.get("prompt", ""), str):
                self.ledger.wrong(f"sample.samples.{number}", row, "a text, or a table with a prompt")
                continue
            line = " ".join(str(row.get("prompt", "")).split())
            if embedded:
                row = {"guidance_scale": guidance} | row
            for key, option in options.items():
                if row.get(key) not in (None, "", False) and f" --{option} " not in f" {line} ":
                    line += f" --{option} {row[key]}"
            lines.append(line)
        return lines

    def _records(self) -> None:
        project = str(self.value("logging.project_name") or "")
        if self.value("logging.use_wandb"):
            self.settle("logging.use_wandb", {})
            self.settle("logging.project_name", {"logging.wandb_project": project})
        self.idle("logging.project_name", "use_wandb is off")
        self.idle("logging.use_wandb", "asks for nothing")

    # ---- data

    def _datasets(self, datasets: Any) -> None:
        if not isinstance(datasets, list) or len(datasets) > 100:
            self.ledger.wrong("datasets", type(datasets).__name__, "a list of datasets")
            return
        trigger = str(self.given.get("process.trigger_word") or "")
        if "process.trigger_word" in self.given:
            how = "put before captions that do not begin with it; [trigger] inside a caption file is not replaced"
            self.ledger.approximated("process.trigger_word", trigger, how, {"datasets.captions.trigger": trigger})
            self.done.add("process.trigger_word")
        self.ledger.values["buckets.algorithm"] = "native"
        cached = []
        for number, row in enumerate(datasets):
            where = f"datasets.{number}."
            if not isinstance(row, dict):
                self.ledger.wrong(where[:-1], row, "a table")
                continue
            known = {name[8:]: key for name, key in keys().items() if name.startswith("dataset.")}
            own = Ledger("")
            given = take(known, row, own, where)
            cached.append(bool(given.get("cache_latents") or given.get("cache_latents_to_disk")))
            self._dataset(given, known, where, own)
            for group in ("mapped", "approximated", "refused", "idle"):
                getattr(self.ledger.reading, group).extend(getattr(own.reading, group))
            self.ledger.problems += own.problems
            self.ledger.values |= own.values
            self.ledger.origin |= own.origin
        if cached:
            self.ledger.values["cache.latents"] = any(cached)

    def _dataset(self, given: dict[str, Any], known: Mapping[str, Key], where: str, own: Ledger) -> None:
        path = given.get("folder_path") or given.get("dataset_path") or ""
        for name in ("folder_path", "dataset_path"):
            if name in given:
                own.mapped(where + name, given[name], {})
        sizes = self._sizes(given.get("resolution", 512), where, own)
        if "resolution" in given:
            how = "" if len(sizes) == 1 else "one dataset for each size, as AI Toolkit makes them"
            booking = Item(f"{where}resolution", given["resolution"], {"datasets.resolution": sizes}, how)
            (own.reading.approximated if how else own.reading.mapped).append(booking)
        if "trigger_word" in given:
            how = "put before captions that do not begin with it"
            own.approximated(f"{where}trigger_word", given["trigger_word"], how)
            own.every["captions.trigger"] = given["trigger_word"]
        if given.get("flip_x"):
            how = "half of the draws are mirrored; there mirrored copies double the epoch"
            own.approximated(f"{where}flip_x", True, how, {"datasets.flip": True})
        elif "flip_x" in given:
            own.mapped(f"{where}flip_x", False, {"datasets.flip": False})
        for name in ("cache_latents", "cache_latents_to_disk"):
            if name in given:
                own.mapped(where + name, given[name], {})
        if given.get("cache_text_embeddings"):
            own.approximated(
                f"{where}cache_text_embeddings", True, "for all datasets: cache.text", {"cache.text": True}
            )
        elif "cache_text_embeddings" in given:
            own.idle(f"{where}cache_text_embeddings", False, "asks for nothing")
        by_hand = {"folder_path", "dataset_path", "resolution", "trigger_word", "flip_x"}
        by_hand |= {"cache_latents", "cache_latents_to_disk", "cache_text_embeddings"}
        for name, value in given.items():
            if name not in by_hand:
                book(known[name], value, own, where + name)
        own.every.setdefault("repeats", 1)
        if not path:
            own.wrong(f"{where}folder_path", "nothing", "a folder of pictures", "Name it.")
        for size in sizes:
            self.ledger.datasets.append({**own.every, "path": str(path), "resolution": size})

    @staticmethod
    def _sizes(given: Any, where: str, own: Ledger) -> list[int]:
        sizes = given if isinstance(given, list) else [given]
        if not sizes or any(isinstance(size, bool) or not isinstance(size, int) for size in sizes) or len(sizes) > 10:
            own.wrong(f"{where}resolution", given, "a whole number, or a list of them")
            return [512]
        return list(sizes)
