"""diffusers: the YAML of the SDXL guide, and command lines of the LoRA example scripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import yaml

from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Ledger, Reading, Writing
from trainpilot.dialects._draft import Draft, book_datasets
from trainpilot.dialects._flags import parse_flags
from trainpilot.dialects._keys import WAYS, Key, book, table, take
from trainpilot.dialects._text import from_yaml, words
from trainpilot.errors import PilotError

NAME = "diffusers_yaml"
LABEL = "diffusers: the SDXL guide's YAML, or a command line of an example script"
SUFFIX = ".yaml"

# The guide's names -> the scripts'.
NAMES = {
    "model_name": "pretrained_model_name_or_path",
    "vae_name": "pretrained_vae_model_name_or_path",
    "lora_rank": "rank",
    "lora_target_modules": "lora_layers",
    "save_steps": "checkpointing_steps",
    "save_total_limit": "checkpoints_total_limit",
}
_BACK = {theirs: guide for guide, theirs in NAMES.items()}
SCRIPTS = {
    "train_text_to_image_lora.py": "sd15",
    "train_text_to_image_lora_sdxl.py": "sdxl",
    "train_dreambooth_lora.py": "sd15",
    "train_dreambooth_lora_sdxl.py": "sdxl",
    "train_dreambooth_lora_flux.py": "flux",
}
# What the scripts take where a flag is absent, where it differs from script to script.
_TEXT = {"train_batch_size": 16, "num_train_epochs": 100, "caption_column": "text", "adam_weight_decay": 1e-2}
_BOOTH = {"train_batch_size": 4, "num_train_epochs": 1, "adam_weight_decay": 1e-4}
DEFAULTS: dict[str, dict[str, Any]] = {
    "train_text_to_image_lora.py": {**_TEXT, "resolution": 512, "learning_rate": 1e-4},
    "train_text_to_image_lora_sdxl.py": {**_TEXT, "resolution": 1024, "learning_rate": 1e-4},
    "train_dreambooth_lora.py": {**_BOOTH, "resolution": 512, "learning_rate": 5e-4, "adam_weight_decay": 1e-2},
    "train_dreambooth_lora_sdxl.py": {**_BOOTH, "resolution": 1024, "learning_rate": 1e-4},
    "train_dreambooth_lora_flux.py": {
        **_BOOTH,
        "resolution": 512,
        "learning_rate": 1e-4,
        "lora_alpha": 4.0,
        "guidance_scale": 3.5,
        "max_sequence_length": 512,
    },
}
_SCRIPT = re.compile(r"(?:^|[\s/\\])(" + "|".join(re.escape(name) for name in SCRIPTS) + r")(?=\s|$)")
SCHEDULES = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")


@cache
def keys() -> Mapping[str, Key]:
    """Every flag, by its name without dashes."""
    return table(Path(__file__).with_suffix(".toml"))


def fate(name: str) -> str:
    """The list a flag falls into when a file sets it to something of its own."""
    return keys()[name].fate


def sniff(text: str) -> float:
    """A command with one of the scripts, or flat YAML with the guide's names."""
    if _SCRIPT.search(text):
        return 1.0
    try:
        tree = from_yaml(text)
    except PilotError:
        return 0.0
    if not isinstance(tree, dict) or any(isinstance(value, dict) for value in tree.values()):
        return 0.0
    known = sum(name in NAMES or name in keys() for name in tree)
    named = sum(name in NAMES for name in tree)
    return min(1.0, 0.4 + named / 5) if named and known > len(tree) / 2 else 0.0


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for the guide's YAML, or for a command line."""
    ledger = Ledger(NAME)
    found = _SCRIPT.search(text)
    names: dict[str, str] = {}
    if found:
        given = _command(text, found[1], ledger)
    else:
        tree = from_yaml(text)
        if not isinstance(tree, dict):
            raise PilotError("file", type(tree).__name__, "keys and values", "Is this the guide's configuration?")
        given = {NAMES.get(str(name), str(name)): value for name, value in tree.items()}
        names = {NAMES[name]: name for name in tree if name in NAMES}
        if len(given) < len(tree):
            twice = [f"{name} and {NAMES[name]}" for name in tree if name in NAMES and NAMES[name] in tree]
            raise PilotError("file", ", ".join(twice), "one name for a setting", "Remove one of the two.")
    typed = take({**keys(), **{guide: keys()[theirs] for guide, theirs in NAMES.items()}}, given, ledger)
    reader = _Reader(typed, ledger, found[1] if found else "", names)
    reader.read()
    return ledger.close()


def _command(text: str, script: str, ledger: Ledger) -> dict[str, Any]:
    split = words(text)
    place = next(n for n, word in enumerate(split) if PurePath(word.replace("\\", "/")).name == script)
    given = parse_flags(split[place + 1 :], keys(), ledger)
    for position, word in enumerate(split[:place]):
        name, equals, value = word.partition("=")
        if name == "--mixed_precision":
            given.setdefault("mixed_precision", value if equals else split[position + 1])
    if isinstance(given.get("lora_layers"), list) and len(given["lora_layers"]) == 1:
        given["lora_layers"] = [item.strip() for item in str(given["lora_layers"][0]).split(",")]
    return given


class _Reader:
    """One configuration while it is read. script: whose defaults hold for absent flags; "" for the YAML."""

    def __init__(self, given: dict[str, Any], ledger: Ledger, script: str, names: Mapping[str, str]) -> None:
        self.given, self.ledger, self.script, self.names = given, ledger, script, names
        self.family = SCRIPTS.get(script, "")
        self.defaults = DEFAULTS.get(script, {})
        self.done: set[str] = set()

    def value(self, name: str) -> Any:
        """What the script works with; for the YAML only what it says, since the rest is ours."""
        if name in self.given:
            return self.given[name]
        return self.defaults.get(name, keys()[name].default) if self.script else None

    def settle(self, name: str, became: Mapping[str, Any], how: str = "") -> None:
        """Book a flag: mapped, approximated where `how` says so, or assumed where it is absent."""
        if name in self.done:
            return
        self.done.add(name)
        shown = self.names.get(name, name)
        if name not in self.given:
            if became and self.script:
                self.ledger.assumed(shown, self.value(name), became)
        elif how:
            self.ledger.approximated(shown, self.given[name], how, became)
        else:
            self.ledger.mapped(shown, self.given[name], became)

    def idle(self, name: str, why: str) -> None:
        if name in self.given and name not in self.done:
            self.ledger.idle(self.names.get(name, name), self.given[name], why)
        self.done.add(name)

    def read(self) -> None:
        if self.family:
            self.ledger.values["model.family"] = self.family
        self._data()
        self._network()
        self._length()
        self._optimizer()
        self._schedule()
        self._levels()
        self._rest()
        for name, key in keys().items():
            if name in self.done:
                continue
            if name in self.given:
                book(key, self.given[name], self.ledger, self.names.get(name, name))
            elif self.script and key.to and not key.no and not key.by and self.value(name) is not None:
                ours = WAYS[key.way].read(self.value(name))
                self.ledger.assumed(name, self.value(name), {key.to: ours})

    def _data(self) -> None:
        folders = [name for name in ("instance_data_dir", "train_data_dir", "dataset_name") if self.given.get(name)]
        caption = self.given.get("instance_prompt")
        for name in folders:
            self.settle(name, {})
        for name in ("instance_data_dir", "train_data_dir", "dataset_name"):
            self.idle(name, "asks for nothing")
        if folders:
            own: dict[str, Any] = {"path": self.given[folders[0]]}
            if caption and not self.given.get("caption_column"):
                own["default_caption"] = caption
            self.ledger.datasets.append(own)
        if self.given.get("caption_column"):
            self.idle("instance_prompt", "captions come from caption_column")
        self.settle("instance_prompt", {})
        prior = bool(self.value("with_prior_preservation"))
        if prior and self.given.get("class_data_dir"):
            prompt = self.given.get("class_prompt")
            regular: dict[str, Any] = {"path": self.given["class_data_dir"], "regularization": True}
            self.ledger.datasets.append(regular | ({"default_caption": prompt} if prompt else {}))
            for name in ("with_prior_preservation", "class_data_dir", "class_prompt"):
                self.settle(name, {})
        else:
            for name in ("with_prior_preservation", "class_data_dir", "class_prompt"):
                self.idle(name, "with_prior_preservation and class_data_dir go together")
            self.idle("num_class_images", "it goes with with_prior_preservation")
        if self.script:
            # The scripts cut one square out of every picture, at a random place unless center_crop is given.
            self.ledger.values["buckets.enabled"] = False
        if self.script or "center_crop" in self.given:
            self.settle("center_crop", {"datasets.random_crop": not self.value("center_crop")})
        name = str(self.given.get("output_dir") or "")
        if "output_dir" in self.given:
            self.settle("output_dir", {}, f"a run's files lie in outputs/<run>/ of the workspace, not in {name}")

    def _network(self) -> None:
        rank = self.value("rank")
        alpha = self.value("lora_alpha")
        if alpha:
            self.settle("lora_alpha", {"network.alpha": alpha})
        elif self.script and self.family != "flux":
            self.idle("lora_alpha", "this script always takes the rank")
            self.ledger.assumed("lora_alpha", rank, {"network.alpha": float(rank)}, "the rank")
        self.idle("lora_alpha", "asks for nothing")
        layers = self.given.get("lora_layers")
        if layers:
            attention = {"to_k", "to_q", "to_v", "to_out.0"}
            ours: Any = "default" if set(map(str, layers)) == attention else [str(item) for item in layers]
            self.settle("lora_layers", {"network.targets": ours})
        elif self.script:
            self.ledger.values["network.targets"] = "default"
        self.idle("lora_layers", "asks for nothing")
        if self.value("use_dora"):
            self.settle("use_dora", {"network.type": "dora"})
        elif "use_dora" in self.given:
            self.settle("use_dora", {"network.type": "lora"})
        if self.given.get("text_encoder_lr") is not None or (self.script and self.value("train_text_encoder")):
            rate = self.given.get("text_encoder_lr", 5e-6 if self.script in DEFAULTS else None)
            has = self.script in ("", "train_dreambooth_lora_sdxl.py", "train_dreambooth_lora_flux.py")
            if self.value("train_text_encoder") and has:
                self.settle("text_encoder_lr", {"text_encoder.learning_rate": rate})
        self.idle("text_encoder_lr", "the text encoders are not trained")

    def _length(self) -> None:
        steps, epochs = self.given.get("max_train_steps"), self.value("num_train_epochs")
        if steps:
            self.settle("max_train_steps", {"training.steps": steps})
            self.idle("num_train_epochs", "max_train_steps wins")
        elif epochs:
            self.settle("num_train_epochs", {"training.epochs": epochs})
        self.idle("max_train_steps", "asks for nothing")
        self.done.add("num_train_epochs") if not epochs else None

    def _optimizer(self) -> None:
        name = str(self.value("optimizer") or "").lower()
        eight = bool(self.value("use_8bit_adam"))
        ours = {"prodigy": "prodigy", "adamw": "adamw8bit" if eight else "adamw", "": "adamw8bit" if eight else "adamw"}
        known = {
            **ours,
            **{other: other for other in ("adamw8bit", "lion", "lion8bit", "adafactor", "adamw_schedulefree")},
        }
        if "optimizer" in self.given or self.script:
            found = known.get(name)
            how = "" if found else "the scripts take AdamW for it, with a warning"
            self.settle("optimizer", {"optimizer.name": found or ours["adamw"]}, how)
        if eight and name != "prodigy":
            self.settle("use_8bit_adam", {"optimizer.name": "adamw8bit"})
        elif "use_8bit_adam" in self.given:
            if "optimizer" in self.given or eight:
                self.idle("use_8bit_adam", "asks for nothing" if not eight else "Prodigy has no 8-bit form")
            self.settle("use_8bit_adam", {"optimizer.name": "adamw"})
        self.done.add("use_8bit_adam")
        options: dict[str, Any] = {}
        for option in ("beta3", "decouple", "use_bias_correction", "safeguard_warmup"):
            flag = f"prodigy_{option}"
            usual = {"beta3": None}.get(option, True)
            if name != "prodigy":
                self.idle(flag, "only Prodigy reads it")
            elif flag in self.given:
                if self.given[flag] != usual:
                    options[option] = self.given[flag]
                self.settle(flag, {})
        if options:
            self.ledger.values["optimizer.args"] = options

    def _schedule(self) -> None:
        name = self.value("lr_scheduler")
        if name is not None and name not in SCHEDULES:
            self.ledger.wrong("lr_scheduler", name, ", ".join(SCHEDULES))
        warmup = self.value("lr_warmup_steps")
        if name == "constant":
            self.idle("lr_warmup_steps", "a constant rate has no warm-up; constant_with_warmup has one")
        elif warmup is not None:
            self.settle("lr_warmup_steps", {"schedule.warmup_steps": warmup})

    def _levels(self) -> None:
        scheme = str(self.value("weighting_scheme") or "none")
        flow = self.family == "flux"
        if "weighting_scheme" in self.given or flow:
            if scheme == "logit_normal":
                self.settle("weighting_scheme", {"noise.timesteps": "logit_normal"})
                for flag, usual in (("logit_mean", 0.0), ("logit_std", 1.0)):
                    self.settle(flag, {f"noise.{flag}": self.given.get(flag, usual)})
            elif scheme == "none":
                self.settle("weighting_scheme", {"noise.timesteps": "uniform"})
                self.ledger.values["noise.timesteps"] = "uniform"
            else:
                became = {"noise.timesteps": "uniform"}
                self.settle("weighting_scheme", became, f"{scheme} is drawn as uniform, and weighs no loss")
        for flag in ("logit_mean", "logit_std"):
            self.idle(flag, "only logit_normal reads it")

    def _rest(self) -> None:
        x = "enable_xformers_memory_efficient_attention"
        if self.value(x):
            self.settle(x, {"memory.attention": "xformers"})
        elif x in self.given:
            self.settle(x, {"memory.attention": "sdpa"})
        prompt = str(self.given.get("validation_prompt") or "")
        many = self.value("num_validation_images") or 1
        if prompt:
            lines = [prompt] * min(int(many), 16) if self.script else [prompt]
            self.settle("validation_prompt", {"sampling.prompts": lines})
            self.settle("num_validation_images", {}, "as many lines of sampling.prompts, seeds counting up")
            if "validation_epochs" in self.given or self.script:
                how = "samples follow steps here; the plan prints the steps of an epoch, for sampling.every_steps"
                every = self.value("checkpointing_steps") or 500
                self.settle("validation_epochs", {"sampling.every_steps": every}, how)
                self.ledger.values["sampling.every_steps"] = every
        for name in ("validation_prompt", "num_validation_images", "validation_epochs"):
            self.idle(name, "there is no validation_prompt")
        target = str(self.value("report_to") or "")
        if target in ("wandb", "all"):
            became = {"logging.wandb_project": "diffusers", "logging.tensorboard": target == "all"}
            self.settle("report_to", became, "Weights & Biases' project is called diffusers")
        elif "report_to" in self.given:
            self.settle("report_to", {"logging.tensorboard": target == "tensorboard"})
        if self.script:
            for name, path, usual in (
                ("checkpointing_steps", "saving.every_steps", 500),
                ("checkpoints_total_limit", "saving.keep", 0),
            ):
                if name not in self.given:
                    self.done.add(name)
                    self.ledger.assumed(name, usual or None, {path: usual})


# ---- writing


def write(config: RunConfig) -> Writing:
    """The guide's YAML, and the command of the example script that comes nearest."""
    out = Draft(config, {"sd15": "", "sdxl": "", "flux": ""})
    _write_network(out)
    _write_training(out)
    _write_data(out)
    for name, key in keys().items():
        if key.to and not (key.by or key.no or key.how or key.to in out.done or key.to.startswith("datasets.")):
            value = WAYS[key.way].write(out.get(key.to))
            out.put(key.to, "", **{name: value})
    out.left("diffusers' scripts have no such flag", {"network.block_ranks": "every layer has the same rank there"})
    values = {_BACK.get(name, name): out.values[name] for name in keys() if name in out.values}
    out.writing.text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
    script = {family: name for name, family in SCRIPTS.items() if "dreambooth" not in name} | {
        "flux": "train_dreambooth_lora_flux.py"
    }
    out.writing.command = ["accelerate", "launch", script[out.family], *_flags(out.values)]
    return out.writing


def _flags(values: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name in keys():
        value = values.get(name)
        if value is True:
            found.append(f"--{name}")
        elif value not in (None, False, "") and not (isinstance(value, list) and not value):
            found += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return found


def _write_network(out: Draft) -> None:
    network = out.config.network
    if network.type in ("lora", "dora"):
        out.put("network.type", "", use_dora=network.type == "dora")
    else:
        out.put("network.type", f"{network.type} is not there; LoRA takes its place", use_dora=False)
    out.put("network.alpha", "", lora_alpha=network.alpha)
    attention = ["to_k", "to_q", "to_v", "to_out.0"]
    if isinstance(network.targets, list):
        out.put("network.targets", "", lora_layers=network.targets)
    elif network.targets == "default" and out.family != "flux":
        out.put("network.targets", "", lora_layers=attention)
    elif network.targets == "default":
        out.put("network.targets", "the script's own layers, which are the same")
    else:
        how = "the attention alone; name endings of layers in lora_layers for more"
        out.put("network.targets", how, lora_layers=attention)
    out.put("model.family", "the script says it")


def _write_training(out: Draft) -> None:
    config = out.config
    training, optimizer, schedule = config.training, config.optimizer, config.schedule
    if training.steps is not None:
        out.put("training.steps", "", max_train_steps=training.steps)
    if training.epochs is not None:
        out.put("training.epochs", "", num_train_epochs=training.epochs)
    how = "" if optimizer.name in ("adamw", "prodigy", "adamw8bit") else "the scripts take AdamW for it"
    out.put("optimizer.name", how, optimizer=optimizer.name)
    if optimizer.args:
        known = {"decouple", "use_bias_correction", "safeguard_warmup", "beta3"}
        if optimizer.name == "prodigy" and optimizer.args.keys() <= known:
            usual = {key: value for key, value in optimizer.args.items() if key != "beta3" and value is True}
            how = f"{', '.join(usual)}: already the default" if usual else ""
            out.put("optimizer.args", how, **{f"prodigy_{key}": value for key, value in optimizer.args.items()})
        else:
            out.refuse("optimizer.args", "the scripts pass no further arguments on")
    text = config.text_encoder
    if not text.train:
        for path in ("text_encoder.learning_rate", "text_encoder.learning_rate_2"):
            out.idle(path, "the text encoders are not trained")
    else:
        out.put("text_encoder.learning_rate", "", text_encoder_lr=text.learning_rate)
        if text.learning_rate_2 is not None:
            out.refuse("text_encoder.learning_rate_2", "one rate for all text encoders")
    out.put("schedule.name", "", lr_scheduler=schedule.name)
    warmup = schedule.warmup_steps
    if schedule.name == "constant":
        out.idle("schedule.warmup_steps", "a constant rate has no warm-up")
    elif warmup == int(warmup):
        out.put("schedule.warmup_steps", "", lr_warmup_steps=int(warmup))
    else:
        steps = int(warmup * (training.steps or 1000) if warmup < 1 else warmup)
        out.put("schedule.warmup_steps", "in whole steps", lr_warmup_steps=steps)
    _write_levels(out)
    mixed = config.precision.mixed
    if mixed == "auto":
        out.put("precision.mixed", "bf16, which newer GPUs have", mixed_precision="bf16")
    attention = config.memory.attention
    how = "" if attention in ("xformers", "sdpa") else "torch's kernels"
    out.put("memory.attention", how, enable_xformers_memory_efficient_attention=attention == "xformers")
    prediction = config.model.prediction
    if prediction == "auto":
        out.put("model.prediction", "the scheduler's own configuration says it")


def _write_levels(out: Draft) -> None:
    noise, flow = out.config.noise, out.family == "flux"
    if not flow:
        out.put(
            "noise.timesteps", "levels are drawn uniformly there" if noise.timesteps != "uniform" else "uniformly there"
        )
    elif noise.timesteps in ("uniform", "logit_normal"):
        scheme = "none" if noise.timesteps == "uniform" else "logit_normal"
        out.put("noise.timesteps", "", weighting_scheme=scheme)
    else:
        out.put("noise.timesteps", "logit_normal is nearest", weighting_scheme="logit_normal")
    if flow and noise.timesteps == "logit_normal":
        out.put("noise.logit_mean", "", logit_mean=noise.logit_mean)
        out.put("noise.logit_std", "", logit_std=noise.logit_std)
    else:
        for path in ("noise.logit_mean", "noise.logit_std"):
            out.idle(path, "only logit_normal reads it")


def _write_data(out: Draft) -> None:
    config = out.config
    out.done.add("datasets")
    sampling = config.sampling
    single = len(set(sampling.prompts)) == 1
    if sampling.prompts:
        how = "" if single and len(sampling.prompts) == 1 else "one prompt alone is taken there"
        out.put("sampling.prompts", how, validation_prompt=sampling.prompts[0])
    plain = [n for n, dataset in enumerate(config.datasets) if not dataset.regularization][:1]
    regular = [n for n, dataset in enumerate(config.datasets) if dataset.regularization][:1]
    usual = {0} | ({1} if regular else set())
    in_order = set(plain + regular) == usual and (not regular or regular == [1])
    for index, dataset in enumerate(config.datasets):
        done: dict[str, str] = {}
        apart = "" if in_order else "datasets come in another order"
        if [index] == plain:
            name = "instance_data_dir" if dataset.default_caption else "train_data_dir"
            out.values[name] = dataset.path
            out.values["instance_prompt"] = dataset.default_caption or None
            done |= {"path": apart, "regularization": apart}
            if dataset.default_caption:
                done["default_caption"] = apart or "only where caption_column names no captions"
            if not dataset.default_caption:
                out.values["caption_column"] = dataset.caption_column
                done["caption_column"] = "" if len(config.datasets) == 1 else apart or "for all datasets"
            out.values |= {"random_flip": dataset.flip, "center_crop": not dataset.random_crop}
            how = "" if len(config.datasets) == 1 else "for all datasets"
            done |= {"flip": how, "random_crop": how}
            if dataset.repeats is not None:
                out.values["repeats"] = dataset.repeats
                done["repeats"] = how
        elif [index] == regular:
            out.values |= {"class_data_dir": dataset.path, "with_prior_preservation": True}
            out.values["class_prompt"] = dataset.default_caption or None
            done |= {"path": apart, "regularization": apart}
            if dataset.default_caption:
                done["default_caption"] = apart
        book_datasets(out, index, done, "the scripts take one folder, its captions as they stand")
    out.values = {name: value for name, value in out.values.items() if value is not None}
