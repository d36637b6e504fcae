"""sd-scripts: its training file (TOML), its dataset file, and command lines of its LoRA scripts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import tomli_w

from trainpilot.config.schema import RunConfig
from trainpilot.dialects._account import Ledger, Reading, Writing
from trainpilot.dialects._flags import parse_flags
from trainpilot.dialects._keys import take
from trainpilot.dialects._text import from_toml, words
from trainpilot.dialects.sd_scripts import data
from trainpilot.dialects.sd_scripts.arguments import (
    SCRIPTS,
    Arguments,
    argument_keys,
    network_keys,
    split_pairs,
)
from trainpilot.dialects.sd_scripts.reading import read_arguments
from trainpilot.dialects.sd_scripts.writing import Draft, draft, prompt_lines, script
from trainpilot.errors import PilotError

NAME = "sd_scripts"
LABEL = "sd-scripts training file, dataset file or command line"
SUFFIX = ".toml"

_SCRIPT = re.compile(r"(?:^|[\s/\\])((?:[a-z0-9]+_)*train_network\.py)(?=\s|$)")
_TELLING = ("network_module", "network_dim", "pretrained_model_name_or_path", "train_batch_size", "max_train_steps")


def sniff(text: str) -> float:
    """A command with one of the scripts, a file with [[datasets.subsets]], or a TOML file with its argument names."""
    tree = _tree(text)
    if tree is None:
        return 1.0 if _SCRIPT.search(text) else 0.6 if text.lstrip().startswith("--") else 0.0
    if _is_dataset_file(tree):
        return 1.0
    names = set(_flat(tree))
    found = sum(name in names for name in _TELLING)
    return 0.0 if found == 0 else 0.5 + found / 10


def _tree(text: str) -> dict[str, Any] | None:
    """The tables of a TOML file; None where it is none, as a command line is none."""
    try:
        return from_toml(text)
    except PilotError:
        return None


def _is_dataset_file(tree: Mapping[str, Any]) -> bool:
    datasets = tree.get("datasets")
    first = datasets[0] if isinstance(datasets, list) and datasets else None
    return isinstance(first, dict) and "subsets" in first


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a training file; headings are decoration, and a later section wins, as sd-scripts reads it."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name not in argument_keys():
            found |= value
        else:
            found[name] = value
    return found


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for a training file, a dataset file or a command line."""
    ledger = Ledger(NAME)
    if _tree(text) is None and (_SCRIPT.search(text) or text.lstrip().startswith("--")):
        given, family = _command(text, ledger, nearby)
    else:
        tree = from_toml(text, "file")
        # Our own files, and many others, hold the command as a comment: it tells the family.
        named = _SCRIPT.search(text)
        family = SCRIPTS.get(named[1]) if named else None
        if _is_dataset_file(tree):
            data.read_file(text, "dataset file", ledger)
            ledger.values["buckets.algorithm"] = "kohya"
            return ledger.close()
        given = _flat(tree)
    args = arguments(given, ledger, family)
    file = str(args.value("dataset_config") or "")
    data.read(args, nearby(file) if file else None)
    read_arguments(args)
    return ledger.close()


def arguments(given: Mapping[str, Any], ledger: Ledger, family: str | None) -> Arguments:
    """Untyped values by argument name, as Arguments; the entries of network_args get names of their own."""
    plain = dict(given)
    for name in ("lr_warmup_steps", "lr_decay_steps"):
        plain[name] = _share(name, plain[name], ledger) if name in plain else None
        if plain[name] is None:
            del plain[name]
    typed = take(argument_keys(), plain, ledger)
    entries = split_pairs("network_args", typed.pop("network_args", []), ledger)
    for name, value in take(network_keys(), entries, ledger, "network_args.").items():
        typed[f"network_args.{name}"] = value
    return Arguments(typed, ledger, family=family)


def _share(name: str, value: Any, ledger: Ledger) -> Any:
    """Warm-up in percent is a share; a float of 1 or more in a file is a share too there, which nobody means."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            ledger.wrong(name, value, "steps, a share below 1, or percent")
            return None
    if isinstance(value, float) and value >= 1:
        ledger.approximated(f"{name}, a float", value, f"sd-scripts reads {value:g} times the run; steps are meant")
    return value


def _command(text: str, ledger: Ledger, nearby: Callable[[str], str | None]) -> tuple[dict[str, Any], str | None]:
    found = words(text)
    place = next((n for n, word in enumerate(found) if PurePath(word.replace("\\", "/")).name in SCRIPTS), None)
    family, given = None, {}
    if place is None:
        given = parse_flags(found, argument_keys(), ledger)
    else:
        family = SCRIPTS[PurePath(found[place].replace("\\", "/")).name]
        given = parse_flags(found[place + 1 :], argument_keys(), ledger)
        _launcher(found[:place], given, ledger)
    file = given.pop("config_file", None)
    if file is None:
        return given, family
    name = file if str(file).endswith(".toml") else f"{file}.toml"
    below = nearby(str(name))
    if below is None:
        raise PilotError("config_file", name, "a file that can be read here", "Put it beside, or correct the path.")
    ledger.mapped("config_file", file, {})
    return {**_flat(from_toml(below, str(name))), **given}, family


def _launcher(before: Sequence[str], given: dict[str, Any], ledger: Ledger) -> None:
    """What stands before the script: of accelerate launch, only the precision has a part in the result."""
    for position, word in enumerate(before):
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            continue
        follows = (
            before[position + 1] if position + 1 < len(before) and not before[position + 1].startswith("--") else ""
        )
        value = value if equals else follows
        if name == "--mixed_precision" and "mixed_precision" not in given:
            given["mixed_precision"] = value
        else:
            ledger.idle(f"accelerate {name}", value or True, "the trainer chooses processes and devices itself")


def write(config: RunConfig) -> Writing:
    """A training file; a dataset file and a prompt file beside it where they are needed; and the command."""
    out = draft(config)
    name = config.run.name or "lora"
    if data.folders(config) is None:
        file = f"{name}_dataset.toml"
        out.writing.beside[file] = data.write_file(config, out.writing)
        out.values["dataset_config"] = file
    add_prompts(out, name)
    precision = str(out.values.get("mixed_precision", "no"))
    launch = ["accelerate", "launch", "--num_cpu_threads_per_process", "2", "--mixed_precision", precision]
    out.writing.command = [*launch, script(config.model.family), "--config_file", f"{name}{SUFFIX}"]
    out.writing.text = f"# {shlex.join(out.writing.command)}\n{tomli_w.dumps(ordered(out))}"
    return out.writing


def add_prompts(out: Draft, name: str) -> None:
    """Put the prompts into a file beside."""
    lines = prompt_lines(out)
    if lines:
        out.writing.beside[f"{name}_prompts.txt"] = "\n".join(lines) + "\n"
        out.values["sample_prompts"] = f"{name}_prompts.txt"


def ordered(out: Draft) -> dict[str, Any]:
    """The arguments in the table's order, network_args joined."""
    values = dict(out.values)
    if out.network:
        values["network_args"] = [f"{key}={value}" for key, value in out.network.items()]
    return {name: values[name] for name in argument_keys() if name in values}
