"""AI Toolkit: its LoRA jobs, in YAML or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from trainpilot.config.describe import both
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Item, Ledger, Reading, Writing
from trainpilot.dialects._draft import Draft, book_datasets
from trainpilot.dialects._keys import WAYS, Key, book, table, take
from trainpilot.dialects._text import from_json, from_yaml
from trainpilot.dialects.sd_scripts import optimizers
from trainpilot.dialects.sd_scripts.arguments import family_named
from trainpilot.errors import PilotError

NAME = "ai_toolkit"
LABEL = "AI Toolkit job (YAML or JSON)"
SUFFIX = ".yaml"

ARCHITECTURES = {"flux": "flux", "sdxl": "sdxl", "sd15": "sd15", "sd1": "sd15", "sd2": "sd15", "sd3": "sd3"}
TRAINERS = ("sd_trainer", "ui_trainer", "diffusion_trainer")
TRANSFORMERS = ("flux", "sd3")
EPS = 1e-6  # AI Toolkit gives it to every Adam, whatever the file says
OPTIMIZERS = {
    "adam": "adamw", "adamw": "adamw", "adam8": "adamw8bit", "adamw8": "adamw8bit", "adam8bit": "adamw8bit",
    "adamw8bit": "adamw8bit", "lion": "lion", "lion8bit": "lion8bit", "adafactor": "adafactor",
    "prodigy": "prodigy", "prodigy8bit": "prodigy",
}  # fmt: skip
QUANTIZED = {"qfloat8": "fp8", "float8": "fp8", "int8": "int8", "uint4": "nf4", "uint8": "int8"}
LEVELS = {"sigmoid": "sigmoid", "linear": "uniform", "flux_shift": "flux_shift"}
SECTIONS = ("save", "logging", "network", "train", "model", "sample")
_WARMUP = 1000.0  # steps of constant_with_warmup where its parameters say nothing


@cache
def keys() -> Mapping[str, Key]:
    """Every key of a job, under the name of its section."""
    return table(Path(__file__).with_suffix(".toml"))


def fate(name: str) -> str:
    """The list a key falls into when a file sets it to something of its own."""
    return keys()[name].fate


def _tree(text: str) -> Any:
    return from_json(text, comments=True) if text.lstrip().startswith("{") else from_yaml(text)


def sniff(text: str) -> float:
    """A job with config.process."""
    try:
        tree = _tree(text)
    except PilotError:
        return 0.0
    config = tree.get("config") if isinstance(tree, dict) else None
    return 1.0 if isinstance(config, dict) and isinstance(config.get("process"), list) else 0.0


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for the first process of a job."""
    tree = _tree(text)
    config = tree.get("config") if isinstance(tree, dict) else None
    process = config.get("process") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(process, list) or not process or not isinstance(process[0], dict):
        raise PilotError("config.process", "none", "a job with one process", "Is this a job of AI Toolkit?")
    ledger = Ledger(NAME)
    for number, _ in enumerate(process[1:], 1):
        ledger.refused(f"config.process.{number}", "a process", "a job's first process alone is read")
    for name in sorted(tree.keys() - {"config", "job"}):
        ledger.idle(name, tree[name], "free notes; they do not change the training")
    job = process[0]
    kind = str(job.get("type") or "")
    if kind not in TRAINERS:
        remedy = "Captioning, extraction and sliders are other verbs."
        raise PilotError("config.process.0.type", kind or "nothing", ", ".join(TRAINERS), remedy)
    ledger.mapped("type", kind, {})
    name = re.sub(r"[^\w.\- ]+", "_", str(config.get("name") or "")).lstrip(".- ")[:100]
    ledger.mapped("config.name", config.get("name"), {"run.name": name or None})
    flat: dict[str, Any] = {}
    for key, value in job.items():
        if key in SECTIONS and isinstance(value, dict):
            for inner, leaf in value.items():
                ema = key == "train" and inner == "ema_config" and isinstance(leaf, dict)
                flat |= {f"train.ema_config.{k}": v for k, v in leaf.items()} if ema else {f"{key}.{inner}": leaf}
        elif key not in ("type", "datasets"):
            flat[f"process.{key}"] = value
    known = {name: key for name, key in keys().items() if not name.startswith("dataset.")}
    given = take(known, flat, ledger)
    found = _Job(given, ledger)
    found.read(job.get("datasets"))
    return ledger.close()


class _Job:
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
        losses = {"mse": ({"loss.type": "l2"}, "")}
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
        warmup = params.get("num_warmup_steps", _WARMUP if name == "constant_with_warmup" else 0)
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


# ---- writing


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
