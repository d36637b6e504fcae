"""Kohya's window: the JSON file its LoRA tab saves and opens, all 287 fields of it.

The window is a form in front of sd-scripts, so a file becomes sd-scripts' arguments first; their reader does the rest.
What the form itself does is done here: texts for numbers, families by checkbox, percent for warm-up, zeros dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trainpilot.config.describe import both
from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Item, Ledger, Reading, Writing
from trainpilot.dialects._flags import parse_flags
from trainpilot.dialects._keys import Key, book, table, take
from trainpilot.dialects._text import from_json, words
from trainpilot.dialects.sd_scripts import arguments as typed_arguments
from trainpilot.dialects.sd_scripts import data
from trainpilot.dialects.sd_scripts.arguments import Arguments, all_keys, argument_keys
from trainpilot.dialects.sd_scripts.reading import read_arguments
from trainpilot.dialects.sd_scripts.writing import Draft, draft, prompt_lines
from trainpilot.errors import PilotError

NAME = "kohya_json"
LABEL = "Kohya GUI configuration (JSON)"
SUFFIX = ".json"

_TELLING = {
    "LoRA_type",
    "network_dim",
    "max_resolution",
    "lr_warmup",
    "train_batch_size",
    "mixed_precision",
    "optimizer",
}
# Checkbox -> family, in the launcher's order of precedence; none is Stable Diffusion.
CHECKBOXES = {
    "sdxl": "sdxl",
    "flux1_checkbox": "flux",
    "sd3_checkbox": "sd3",
    "hunyuan_image_checkbox": "hunyuan_image",
    "anima_checkbox": "anima",
    "lumina_checkbox": "lumina2",
}
# LoRA_type -> (network_module, LyCORIS algorithm).
TYPES = {
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", ""),
    "Kohya DyLoRA": ("networks.dylora", ""),
    "Kohya LoHa": ("networks.loha", ""),
    "Kohya LoKr": ("networks.lokr", ""),
    "LoRA-FA": ("networks.lora_fa", ""),
    "Flux1": ("networks.lora_flux", ""),
    "Flux1 OFT": ("networks.oft_flux", ""),
    "LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
}
# Names of older files -> today's.
_RENAMED = {
    "lora_network_weights": "network_weights",
    "stop_text_encoder_training_pct": "stop_text_encoder_training",
    "conv_dims": "conv_block_dims",
    "conv_alphas": "conv_block_alphas",
    "flux1_clip_l": "clip_l",
    "flux1_t5xxl": "t5xxl",
    "learning_rate_te": "text_encoder_lr",
    "sdxl_checkbox": "sdxl",
}
_OLD = {
    "save_as_bool": "the window's own note of how the file was saved",
    "no_token_padding": "sd-scripts has dropped it; captions are always padded",
    "learning_rate_te1": "of the Dreambooth tab; text_encoder_lr is the LoRA tab's",
    "learning_rate_te2": "of the Dreambooth tab; text_encoder_lr is the LoRA tab's",
    "fused_backward_pass": "of the fine-tuning tab",
    "fused_optimizer_groups": "of the fine-tuning tab",
    "flux_fused_backward_pass": "of the fine-tuning tab",
    "blockwise_fused_optimizers": "of the fine-tuning tab",
    "disable_mmap_load_safetensors": "how files are read does not change the result",
}
_TODAY = {"use_8bit_adam", "use_wandb"}
# The window drops zeros, so sd-scripts takes these instead.
ZEROS = {"max_grad_norm": 1.0, "prior_loss_weight": 1.0, "multires_noise_discount": 0.3, "guidance_scale": 3.5}
# The window drops a 0 here, which leaves the argument out.
_ABSENT_AT_0 = {"save_last_n_steps", "save_last_n_epochs", "save_last_n_steps_state", "save_last_n_epochs_state"}
# Fields a fresh form fills, which no file is meant to take from it.
_FOR_PEOPLE = {"pretrained_model_name_or_path", "output_name"}


@cache
def fields() -> Mapping[str, Key]:
    """Every field of the form."""
    return table(Path(__file__).with_suffix(".toml"))


def fate(name: str) -> str:
    """The list a field falls into when a file sets it to something of its own."""
    field = fields()[name]
    return field.fate if not field.argument or field.verdict else all_keys()[field.argument].fate


def sniff(text: str) -> float:
    """A flat JSON object with some of the form's fields."""
    try:
        tree = from_json(text)
    except PilotError:
        return 0.0
    if not isinstance(tree, dict):
        return 0.0
    found = len(_TELLING & tree.keys())
    share = sum(name in fields() for name in tree) / max(1, len(tree))
    return 1.0 if "LoRA_type" in tree and share > 0.5 else min(0.9, found / 4) if share > 0.5 else 0.0


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for a file of the LoRA tab."""
    tree = from_json(text)
    if not isinstance(tree, dict):
        raise PilotError(
            "file", type(tree).__name__, "a JSON object", "Save the configuration in Kohya's window again."
        )
    ledger = Ledger(NAME)
    given = take(fields(), _today(tree, ledger), ledger)
    told = any(box in given for box in CHECKBOXES)
    family = _family(given, ledger)
    args = Arguments({}, ledger, family=family)
    _pass_on(given, args)
    _network(given, args)
    _length(given, args)
    _schedule(given, args)
    _rates(given, args)
    _noise(given, args)
    _small(given, args)
    _more(given, args)
    named = str(args.value("dataset_config") or "")
    data.read(args, nearby(named) if named else None)
    for argument, taken in ZEROS.items():
        if args.given.get(argument) == 0 and not args.name(argument).startswith("additional"):
            key = all_keys()[argument]
            if key.to and (argument != "guidance_scale" or family == "flux"):
                how = f"0, as it says; Kohya drops zeros, so sd-scripts took {taken:g}"
                args.settle(argument, {key.to: 0.0}, how)
    read_arguments(args)
    if not told:
        # Files of the tutorials hold no checkbox; the window keeps the one on the screen, we look at the base model.
        ledger.values["model.family"] = "auto"
    return ledger.close()


def _today(tree: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    """A file of any version in today's names, as the window itself renames them when it opens a file."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _OLD and name not in fields():
            ledger.idle(name, value, _OLD[name])
        elif name in _RENAMED and name not in fields():
            if _RENAMED[name] in tree:
                ledger.idle(name, value, f"{_RENAMED[name]}, its new name, is in the file too")
            else:
                found[_RENAMED[name]] = value
                ledger.idle(name, value, f"read under its present name, {_RENAMED[name]}")
        elif name not in _TODAY:
            found[name] = value
    if "use_wandb" in tree:
        used = str(tree["use_wandb"]) == "True"
        ledger.idle("use_wandb", tree["use_wandb"], "log_with says it today")
        if used:
            found.setdefault("log_with", "wandb")
    if "use_8bit_adam" in tree or "optimizer" not in tree:
        eight = str(tree.get("use_8bit_adam")) == "True"
        if "use_8bit_adam" in tree:
            ledger.idle("use_8bit_adam", tree["use_8bit_adam"], "optimizer says it today")
        found.setdefault("optimizer", "AdamW8bit" if eight else "AdamW")
    return found


def _family(given: dict[str, Any], ledger: Ledger) -> str:
    checked = [name for name in CHECKBOXES if given.get(name)]
    for name in CHECKBOXES:
        value = given.pop(name, None)
        if value and name == checked[0]:
            ledger.mapped(name, value, {"model.family": CHECKBOXES[name]})
        elif value is not None:
            ledger.idle(name, value, f"{checked[0]} wins" if value else "not checked")
    return CHECKBOXES[checked[0]] if checked else "sd15"


def _pass_on(given: dict[str, Any], args: Arguments) -> None:
    """Fields that are an argument of sd-scripts, and the form's defaults for those that are absent."""
    for name, field in fields().items():
        if field.only and field.only != args.family:
            if name in given:
                args.ledger.idle(name, given.pop(name), f"only {field.only} reads it" if field.argument else field.idle)
            continue
        if name in _ABSENT_AT_0 and given.get(name, 0) == 0:
            if name in given:
                args.ledger.idle(name, given.pop(name), "0: all are kept")
        elif field.argument and name in given:
            args.given[field.argument] = given.pop(name)
            args.names[field.argument] = name
        elif field.argument and name not in _FOR_PEOPLE:
            args.absent.setdefault(field.argument, field.default)
            args.names.setdefault(field.argument, name)
        elif field.idle and name in given:
            args.ledger.idle(name, given.pop(name), field.idle)
        elif field.no and name in given:
            book(field, given.pop(name), args.ledger)
    for argument in ("network_args.conv_dim", "network_args.conv_alpha", "network_args.preset"):
        args.absent.pop(argument, None)
    if isinstance(args.absent.get("resolution"), str):
        args.absent["resolution"] = 512


def _network(given: dict[str, Any], args: Arguments) -> None:
    kind = str(given.pop("LoRA_type", "") or "Standard")
    if kind not in TYPES:
        args.ledger.wrong("LoRA_type", kind, ", ".join(TYPES), "Choose one of these.")
        kind = "Standard"
    module, algorithm = TYPES[kind]
    if kind == "Standard" and args.family in ("flux", "sd3"):
        module = f"networks.lora_{args.family}"
    args.given["network_module"] = module
    args.names["network_module"] = "LoRA_type"
    args.shown["network_module"] = "LyCORIS/LoCon" if kind == "LoCon" else kind
    if algorithm:
        args.given["network_args.algo"] = algorithm
        args.names["network_args.algo"] = "LoRA_type's algorithm"
    if kind in ("Standard", "Flux1", "Flux1 OFT", "LoRA-FA", "LyCORIS/iA3"):
        for argument in ("network_args.conv_dim", "network_args.conv_alpha"):
            args.idle(argument, f"{kind} does not read it")
            args.given.pop(argument, None)
    elif "network_args.conv_dim" not in args:
        args.given["network_args.conv_dim"] = 1
        args.names["network_args.conv_dim"] = "conv_dim, absent"
    if "lycoris" not in module:
        args.idle("network_args.preset", "only LyCORIS reads it")
        args.given.pop("network_args.preset", None)


def _length(given: dict[str, Any], args: Arguments) -> None:
    """Steps, or the form's own arithmetic with epochs where steps are 0, empty or absent."""
    epoch = given.pop("epoch", None)
    steps, longest = args.given.get("max_train_steps"), args.given.get("max_train_epochs")
    absent = "max_train_steps" not in args
    for name in ("max_train_steps", "max_train_epochs"):
        args.absent.pop(name, None)
    if longest:
        if epoch is not None:
            args.ledger.idle("epoch", epoch, "max_train_epochs wins")
    elif steps:
        if epoch is not None:
            args.ledger.idle("epoch", epoch, "max_train_steps is given")
    elif absent and epoch is None:
        args.absent["max_train_steps"] = 1600
    else:
        epochs = 1 if epoch is None else epoch
        how = (
            "max_train_steps is absent: the epochs are meant; an open form would keep the steps it shows"
            if absent
            else ""
        )
        if absent:
            args.ledger.approximated("epoch", epochs, how, {"training.epochs": epochs})
        else:
            args.ledger.mapped("epoch" if epoch is not None else "epoch, absent", epochs, {"training.epochs": epochs})
        args.idle("max_train_steps", "0: the epochs decide")
        args.idle("max_train_epochs", "asks for nothing")
        args.given.pop("max_train_steps", None)
        args.given.pop("max_train_epochs", None)
        args.absent["max_train_steps"] = None


def _schedule(given: dict[str, Any], args: Arguments) -> None:
    """Warm-up in percent, unless it is given in steps."""
    field = fields()["lr_warmup"]
    percent = given.pop("lr_warmup", None)
    if args.given.get("lr_warmup_steps"):
        if percent is not None:
            args.ledger.idle("lr_warmup", percent, "lr_warmup_steps wins")
        return
    args.idle("lr_warmup_steps", "0: lr_warmup decides")
    args.given.pop("lr_warmup_steps", None)
    args.booked.discard("lr_warmup_steps")
    args.absent.pop("lr_warmup_steps", None)
    share = (field.default if percent is None else percent) / 100
    if not 0 <= share <= 1:
        args.ledger.wrong("lr_warmup", percent, "0 to 100 percent")
        return
    share = min(share, 0.99)
    args.names["lr_warmup_steps"] = "lr_warmup"
    if percent is not None:
        args.given["lr_warmup_steps"] = share
    elif str(args.value("lr_scheduler")) not in ("constant", "adafactor"):
        args.absent["lr_warmup_steps"] = share
        args.ledger.assumed("lr_warmup", field.default, {"schedule.warmup_steps": share})


def _rates(given: dict[str, Any], args: Arguments) -> None:
    """The form's rates: 0 for the text encoders leaves them alone, 0 for the denoiser trains only them."""
    text = _taken(given, "text_encoder_lr")
    third = _taken(given, "t5xxl_lr")
    unet = args.value("unet_lr")
    args.names["text_encoder_lr"] = "text_encoder_lr"
    args.absent.pop("text_encoder_lr", None)
    if text[0] == 0:
        args.given["network_train_unet_only"] = True
        args.names["network_train_unet_only"] = "text_encoder_lr" if text[1] else "text_encoder_lr, absent"
    else:
        rates = [text[0], third[0]] if third[0] else [text[0]]
        args.given["text_encoder_lr"] = rates
        args.names["text_encoder_lr"] = "text_encoder_lr" if text[1] else "text_encoder_lr, absent"
        if unet == 0:
            args.given["network_train_text_encoder_only"] = True
            args.names["network_train_text_encoder_only"] = "unet_lr of 0"
    if third[1] and third[0]:
        args.ledger.mapped("t5xxl_lr", third[0], {})
    elif third[1]:
        args.ledger.idle("t5xxl_lr", third[0], "asks for nothing")
    for argument in ("network_train_unet_only", "network_train_text_encoder_only"):
        args.absent.setdefault(argument, False)


def _taken(given: dict[str, Any], name: str) -> tuple[Any, bool]:
    """A field's value or its default, and whether the file says it."""
    here = name in given
    return given.pop(name, fields()[name].default), here


def _noise(given: dict[str, Any], args: Arguments) -> None:
    """Only the fields of the chosen kind of noise are passed on."""
    kind = str(given.get("noise_offset_type") or "Original")
    if kind not in ("Original", "Multires"):
        args.ledger.wrong("noise_offset_type", kind, "Original, Multires")
    if "noise_offset_type" in given:
        args.ledger.mapped("noise_offset_type", given.pop("noise_offset_type"), {})
    original = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
    multires = ("multires_noise_iterations", "multires_noise_discount")
    for argument in multires if kind == "Original" else original:
        args.idle(argument, f"noise_offset_type is {kind}")
        args.given.pop(argument, None)
        args.absent.pop(argument, None)


def _small(given: dict[str, Any], args: Arguments) -> None:
    """Attention, compiling, prompts: fields the form itself translates."""
    attention, said = _taken(given, "xformers")
    attention = {"true": "xformers", "false": "none"}.get(str(attention).lower(), str(attention))
    where = args.given if said else args.absent
    if attention in ("xformers", "sdpa"):
        where[attention] = True
    elif attention in ("none", ""):
        where["sdpa"] = False
    else:
        args.ledger.wrong("xformers", attention, "none, sdpa, xformers")
    args.names |= {"xformers": "xformers", "sdpa": "xformers"}
    backend, said = _taken(given, "dynamo_backend")
    on = str(backend).lower() not in ("", "no")
    if said:
        how = "" if str(backend).lower() in ("no", "inductor", "") else "blocks are compiled with inductor"
        if how:
            args.ledger.approximated("dynamo_backend", backend, how, {"memory.compile": on})
        else:
            args.ledger.mapped("dynamo_backend", backend, {"memory.compile": on})
    args.booked |= {"torch_compile", "dynamo_backend"}
    prompts = str(given.pop("sample_prompts", "") or "")
    lines = [line.strip() for line in prompts.splitlines() if line.strip() and not line.strip().startswith("#")]
    args.booked.add("sample_prompts")
    if lines:
        args.ledger.mapped("sample_prompts", prompts, {"sampling.prompts": lines})
        flow = args.family == "flux"
        became = {"sampling.steps": 20 if flow else 30, "sampling.guidance": 1.0 if flow else 7.5, "sampling.size": 512}
        args.ledger.assumed("sample_prompts: --s --l --w --h", "", became)
    elif prompts or "sample_prompts" in given:
        args.ledger.idle("sample_prompts", prompts, "no prompt")


def _more(given: dict[str, Any], args: Arguments) -> None:
    """additional_parameters: a piece of command line that wins over the form."""
    there = "additional_parameters" in given
    text = str(given.pop("additional_parameters", "") or "").replace('"', "").replace("'", "")
    if not text.strip():
        if there:
            args.ledger.idle("additional_parameters", text, "asks for nothing")
        return
    flags = parse_flags(words(text, "additional_parameters"), argument_keys(), args.ledger)
    more = typed_arguments(flags, args.ledger, args.family)
    for argument, value in more.given.items():
        if argument in args.given and argument not in args.booked:
            name = args.name(argument)
            args.ledger.idle(name, args.given[argument], "additional_parameters says otherwise")
        args.given[argument] = value
        args.names[argument] = f"additional_parameters --{argument}"
        args.booked.discard(argument)
    args.ledger.mapped("additional_parameters", text, {})


# ---- writing


def write(config: RunConfig) -> Writing:
    """A whole form. What it has no field for goes into additional_parameters."""
    out = draft(config)
    name = config.run.name or "lora"
    if data.folders(config) is None:
        file = f"{name}_dataset.toml"
        out.writing.beside[file] = data.write_file(config, out.writing)
        out.values["dataset_config"] = file
    form: dict[str, Any] = {field: _fresh(key) for field, key in fields().items()}
    form |= dict.fromkeys(CHECKBOXES, False)
    family = config.model.family
    for box, meant in CHECKBOXES.items():
        form[box] = meant == family
    form["output_name"] = name
    if not config.run.name:
        _demote(out, {"run.name": "a file there needs a name"})
    form["pretrained_model_name_or_path"] = config.model.base
    more = _fill(form, out)
    form["additional_parameters"] = " ".join(more)
    out.writing.text = json.dumps({**form, "save_as_bool": False}, indent=2, ensure_ascii=False) + "\n"
    return out.writing


def _fresh(key: Key) -> Any:
    return " ".join(key.default) if key.kind == "list" else key.default


def _fill(form: dict[str, Any], out: Draft) -> list[str]:
    """Put the arguments into the form's fields; returns the words of additional_parameters for the others."""
    values, family = dict(out.values), out.family
    values |= {f"network_args.{name}": value for name, value in out.network.items()}
    _special_fields(form, values, out)
    places = {key.argument: name for name, key in fields().items() if key.argument and key.only in ("", family)}
    more: list[str] = []
    for argument, value in values.items():
        key = all_keys()[argument]
        place = places.get(argument)
        if place is not None:
            form[place] = value
        dropped = place is not None and value == 0 and not isinstance(value, bool)
        if (dropped and argument in (*ZEROS, "seed", "learning_rate", "save_last_n_steps")) or (
            place is None and not key.asks_nothing(value)
        ):
            more += _flag(argument, value, out)
    return more


def _flag(argument: str, value: Any, out: Draft) -> list[str]:
    """A flag for additional_parameters, which the window splits at spaces and strips of quotes."""
    if value is True:
        return [f"--{argument}"]
    items = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    if any(not item or set(item) & set(" \"'\t\n") or item.startswith("--") for item in items):
        paths = {all_keys()[argument].to}
        why = f"--{argument} holds spaces or quotes, which additional_parameters cannot"
        for item in [item for item in out.writing.mapped if _base(item.key) in paths]:
            out.writing.mapped.remove(item)
            out.writing.refused.append(Item(item.key, item.value, {}, why))
        return []
    return [f"--{argument}", *items]


def _base(path: str) -> str:
    """datasets.0.captions.prefix -> datasets.captions.prefix, as the key tables say it."""
    head, _, rest = path.partition(".")
    number, _, inner = rest.partition(".")
    return f"{head}.{inner}" if head == "datasets" and number.isdigit() else path


def _special_fields(form: dict[str, Any], values: dict[str, Any], out: Draft) -> None:
    """Fields that are no argument of the same name; what they say is taken out of `values`."""
    config = out.config
    module, algorithm = values.pop("network_module"), values.pop("network_args.algo", "")
    conv = "network_args.conv_dim" in values
    kinds = {("networks.lora", ""): "Kohya LoCon" if conv else "Standard", ("networks.lora_flux", ""): "Flux1"}
    kinds |= {("networks.lora_sd3", ""): "Standard"}
    kinds |= {(module, name): kind for kind, (module, name) in TYPES.items() if kind.startswith("LyCORIS/")}
    form["LoRA_type"] = kinds[module, algorithm]
    if module == "lycoris.kohya" and not conv:
        form["conv_dim"] = 0
    values.pop("network_train_unet_only", None)
    rates = values.pop("text_encoder_lr", None)
    if not config.text_encoder.train:
        form["text_encoder_lr"] = 0.0
    else:
        _text_rates(form, rates, out)
    form["unet_lr"] = values.pop("unet_lr")
    form["xformers"] = "xformers" if values.pop("xformers", False) else "sdpa" if values.get("sdpa") else "none"
    values.pop("sdpa", None)
    form["dynamo_backend"] = "inductor" if values.pop("torch_compile", False) else "no"
    _length_fields(form, values)
    warmup = values.pop("lr_warmup_steps", 0)
    percent = max(1, round(warmup * 100)) if 0 < warmup < 1 else 0
    form |= {"lr_warmup": percent, "lr_warmup_steps": int(warmup) if warmup >= 1 else 0}
    if percent / 100 != warmup < 1:
        _demote(out, {"schedule.warmup_steps": "whole percent"})
    _noise_fields(form, values, out)
    lines = prompt_lines(out)
    values.pop("sample_prompts", None)
    form["sample_prompts"] = "\n".join(lines)
    if config.sampling.prompts_file and not config.sampling.prompts:
        out.writing.mapped = [item for item in out.writing.mapped if item.key != "sampling.prompts_file"]
        why = "the form holds the prompts themselves; paste them into sample_prompts"
        out.writing.refused.append(Item("sampling.prompts_file", config.sampling.prompts_file, {}, why))
    pairs = values.pop("optimizer_args")
    texts = [pair for pair in pairs if set(pair) & set(" \"'")]
    form["optimizer_args"] = " ".join(pair for pair in pairs if pair not in texts)
    if texts:
        out.writing.mapped = [item for item in out.writing.mapped if item.key != "optimizer.args"]
        why = f"{', '.join(texts)}: quotes and spaces are lost in the form"
        out.writing.refused.append(Item("optimizer.args", config.optimizer.args, {}, why))
    size = config.buckets.resolution
    values.pop("resolution", None)
    if size is not None:
        form["max_resolution"] = ",".join(map(str, both(size)))
    values.pop("logging_dir", None)


def _text_rates(form: dict[str, Any], rates: list[float] | None, out: Draft) -> None:
    optimizer = out.config.optimizer
    first = rates[0] if rates else optimizer.learning_rate
    form["text_encoder_lr"] = first
    form["t5xxl_lr"] = rates[1] if rates and len(rates) > 1 and rates[1] != first else 0.0
    wrong = {}
    if not rates:
        wrong["text_encoder.learning_rate"] = "written out, as the learning rate"
    if rates and len(rates) > 1 and rates[1] == first:
        wrong["text_encoder.learning_rate_2"] = "as the first's"
    if rates and len(rates) > 1 and rates[1] == 0:
        wrong["text_encoder.learning_rate_2"] = "0 cannot be said in the form: it means as the first's"
    if first == 0:
        paths = ("text_encoder.train", "text_encoder.learning_rate", "text_encoder.learning_rate_2")
        wrong |= dict.fromkeys(paths, "a rate of 0 leaves them untrained")
    _demote(out, wrong)


def _demote(out: Draft, wrong: Mapping[str, str]) -> None:
    """Settings that were mapped for sd-scripts and that the form says less exactly."""
    for path, how in wrong.items():
        for item in [item for item in out.writing.mapped if item.key == path]:
            out.writing.mapped.remove(item)
            out.writing.approximated.append(Item(path, item.value, item.became, how))


def _length_fields(form: dict[str, Any], values: dict[str, Any]) -> None:
    epochs, steps = values.pop("max_train_epochs", None), values.pop("max_train_steps", None)
    form |= {"max_train_epochs": epochs or 0, "max_train_steps": steps or 0}
    if epochs:
        form["epoch"] = epochs
    form |= {"save_every_n_epochs": 0, "save_every_n_steps": 0, "save_last_n_steps": 0, "save_last_n_epochs": 0}


def _noise_fields(form: dict[str, Any], values: dict[str, Any], out: Draft) -> None:
    """Only one kind of noise can be chosen in the form."""
    noise = out.config.noise
    offset = bool(noise.offset or noise.offset_adaptive)
    if noise.multires_iterations and not offset:
        form["noise_offset_type"] = "Multires"
        return
    form["noise_offset_type"] = "Original"
    if noise.multires_iterations:
        why = "the form passes on either an offset or multi-resolution noise"
        for path in ("noise.multires_iterations", "noise.multires_discount"):
            for item in [item for item in out.writing.mapped + out.writing.approximated if item.key == path]:
                (out.writing.mapped if item in out.writing.mapped else out.writing.approximated).remove(item)
                out.writing.refused.append(Item(path, item.value, {}, why))
    else:
        out.writing.mapped = [item for item in out.writing.mapped if item.key != "noise.multires_discount"]
        out.writing.idle.append(Item("noise.multires_discount", noise.multires_discount, {}, "there are no levels"))
