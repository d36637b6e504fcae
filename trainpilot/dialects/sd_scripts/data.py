"""Where sd-scripts finds its pictures: --train_data_dir, or a dataset file (--dataset_config), both ways.

A dataset file has [general], [[datasets]] and [[datasets.subsets]]; the innermost statement wins. Each subset is one
of our datasets. Folder names such as 10_zorp count only where there is no dataset file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import tomli_w

from trainpilot.config.describe import both, dataset_settings
from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.dialects._account import Item, Ledger, Writing
from trainpilot.dialects._keys import WAYS, Key, book, take
from trainpilot.dialects._text import from_json, from_toml
from trainpilot.dialects.sd_scripts.arguments import Arguments, subset_keys
from trainpilot.errors import PilotError

MOST_SUBSETS = 500
_SPECIAL = {
    "resolution": Key("resolution", "size"),
    "batch_size": Key("batch_size", "int"),
    "validation_split": Key("validation_split", "float", 0.0, no="no pictures are held out"),
    "validation_seed": Key("validation_seed", "int", idle="it goes with validation_split"),
    "num_repeats": Key("num_repeats", "int"),
    "image_dir": Key("image_dir", "str"),
    "is_reg": Key("is_reg", "bool"),
    "conditioning_data_dir": Key("conditioning_data_dir", "str"),
    "metadata_file": Key("metadata_file", "str", no="fine-tuning metadata is not read; metadata.jsonl is"),
}
_DATASET_ONLY = {"resolution", "batch_size", "validation_split", "validation_seed"}
_SUBSET_ONLY = {"image_dir", "is_reg", "conditioning_data_dir", "metadata_file", "alpha_mask"}
_REPEATS = re.compile(r"^([0-9]{1,9})_(.+)$")
BATCH = "training.batch_size"


def read(args: Arguments, dataset_file: str | None) -> None:
    """Book the arguments that name data. dataset_file: the text of what --dataset_config names, where it was found."""
    masks = str(args.value("conditioning_data_dir") or "")
    if args.value("masked_loss") and masks and "dataset_config" not in args:
        args.settle("masked_loss", {})
        args.settle("conditioning_data_dir", {"datasets.masks": masks}, "masks are found by the pictures' names")
    elif args.value("masked_loss"):
        args.settle("masked_loss", {}, "datasets.masks is a folder of masks; alpha channels are not read")
        args.idle("conditioning_data_dir", "the dataset file names the masks")
    else:
        args.idle("masked_loss", "asks for nothing")
        args.idle("conditioning_data_dir", "it goes with masked_loss")
    args.ledger.values["buckets.algorithm"] = "kohya"
    args.ledger.origin["buckets.algorithm"] = "sd-scripts"
    named = str(args.value("dataset_config") or "")
    if named:
        for name in ("train_data_dir", "reg_data_dir"):
            args.idle(name, "dataset_config takes its place there")
        if dataset_file is None:
            raise PilotError(args.name("dataset_config"), f"{named} was not found", "a file that can be read here",
                             "Put it beside the configuration, or correct the path.")  # fmt: skip
        args.settle("dataset_config", {})
        read_file(dataset_file, named, args.ledger)
        return
    args.idle("dataset_config", "asks for nothing")
    for name, regular in (("train_data_dir", False), ("reg_data_dir", True)):
        folder = str(args.value(name) or "")
        if folder:
            args.settle(name, {})
            args.ledger.datasets.append({"path": folder, **({"regularization": True} if regular else {})})
        else:
            args.idle(name, "asks for nothing")


def read_file(text: str, name: str, ledger: Ledger) -> None:
    """Add the datasets of a dataset file (TOML, or JSON by its name) to the ledger."""
    tree = from_json(text, name) if name.endswith(".json") else from_toml(text, name)
    if not isinstance(tree, dict) or not isinstance(tree.get("datasets"), list):
        raise PilotError(name, "no [[datasets]]", "a dataset file of sd-scripts", "Add [[datasets]] with subsets.")
    for other in sorted(tree.keys() - {"general", "datasets"}):
        ledger.refused(other, tree[other], "a dataset file holds [general] and [[datasets]] alone")
    general = _level(tree.get("general", {}), "general", ledger)
    buckets: dict[str, Any] = {}
    for number, table in enumerate(tree["datasets"]):
        where = f"datasets.{number}"
        subsets = table.get("subsets", []) if isinstance(table, dict) else None
        if not isinstance(subsets, list) or len(ledger.datasets) + len(subsets) > MOST_SUBSETS:
            raise PilotError(f"{name}: {where}", "no subsets", "[[datasets.subsets]], 500 at most", "Correct it.")
        level = _level({key: value for key, value in table.items() if key != "subsets"}, where, ledger)
        own = {**general.values, **level.values}
        own[BATCH] = own.pop("batch_size", None)
        general_size = general.values.get("resolution")
        size = level.values.get("resolution")
        own["buckets.resolution"] = general_size if general_size is not None else size
        own.pop("resolution", None)
        for path, value in own.items():
            if value is not None and path not in ("num_repeats",):
                if path in buckets and buckets[path] != value and path != "buckets.resolution":
                    how = f"{path} is the same for all datasets here"
                    ledger.reading.approximated.append(Item(f"{where}: {path}", value, {path: buckets[path]}, how))
                buckets.setdefault(path, value)
        for index, row in enumerate(subsets):
            ledger.datasets.append(_subset(row, f"{where}.subsets.{index}", general, level, size, ledger))
    ledger.values |= {path: value for path, value in buckets.items() if "." in path}
    ledger.origin |= dict.fromkeys(buckets, name)


def _level(table: Any, where: str, ledger: Ledger) -> Ledger:
    """One table of the file, booked; its settings stay in a ledger of their own."""
    own = Ledger("")
    if not isinstance(table, Mapping):
        ledger.wrong(where, table, "a table")
        return own
    keys = {**subset_keys(), **_SPECIAL}
    prefix = f"{where}."
    typed = take(keys, table, own, prefix)
    subset = ".subsets." in where
    for name, value in typed.items():
        barred = (_DATASET_ONLY | {k for k in keys if keys[k].only == "dataset"}) if subset else _SUBSET_ONLY
        if name in barred:
            place = "[general] or [[datasets]]" if subset else "[[datasets.subsets]]"
            own.refused(prefix + name, value, f"it stands in {place}; sd-scripts refuses it here")
        elif name in _SPECIAL and not keys[name].no and not keys[name].idle:
            own.values[name] = value
            own.mapped(prefix + name, value, {})
        else:
            book(keys[name], value, own, prefix + name)
    for group in ("mapped", "approximated", "refused", "idle", "assumed"):
        getattr(ledger.reading, group).extend(getattr(own.reading, group))
    ledger.problems += own.problems
    ledger.origin |= own.origin
    return own


def _subset(row: Any, where: str, general: Ledger, level: Ledger, size: Any, ledger: Ledger) -> dict[str, Any]:
    own = _level(row, where, ledger)
    found = {**general.every, **level.every, **own.every}
    special = {**general.values, **level.values, **own.values}
    if not special.get("image_dir"):
        ledger.wrong(f"{where}.image_dir", "nothing", "a folder of pictures", "Name it.")
    repeats = special.get("num_repeats", 1)
    if repeats < 1:
        ledger.wrong(f"{where}.num_repeats", repeats, "at least 1", "Remove the subset, or correct it.")
    found |= {"path": special.get("image_dir", ""), "repeats": repeats}
    # There, only class_tokens is the caption of a picture without one: the folder's name says nothing.
    found.setdefault("default_caption", "")
    if special.get("is_reg"):
        found["regularization"] = True
    if special.get("conditioning_data_dir"):
        found["masks"] = special["conditioning_data_dir"]
    if (size is not None and general.values.get("resolution") is not None) or size is not None:
        found["resolution"] = size
    return found


# ---- writing


def folders(config: RunConfig) -> dict[str, str] | None:
    """--train_data_dir and --reg_data_dir where they say all there is to say; None where a dataset file is needed."""
    plain = [dataset for dataset in config.datasets if not dataset.regularization]
    regular = [dataset for dataset in config.datasets if dataset.regularization]
    if len(plain) != 1 or len(regular) > 1 or config.datasets[0].regularization:
        return None
    usual = {"path", "regularization"}
    for dataset in config.datasets:
        alike = dataset.model_dump(exclude=usual) == plain[0].model_dump(exclude=usual)
        single = dataset.repeats or dataset.resolution or dataset.masks or dataset.default_caption is not None
        if not alike or single or not dataset.path or _REPEATS.match(PurePath(dataset.path).name):
            return None
    found = {"train_data_dir": plain[0].path}
    return found | ({"reg_data_dir": regular[0].path} if regular else {})


def common(config: RunConfig, paths: Mapping[str, Key]) -> dict[str, Any]:
    """Our dataset settings that all datasets share, by path inside a dataset; those that differ are left out."""
    found = {}
    for path in {key.to.removeprefix("datasets.") for key in paths.values() if key.to.startswith("datasets.")}:
        values = [_get(dataset, path) for dataset in config.datasets]
        if values and all(value == values[0] for value in values):
            found[path] = values[0]
    return found


def write_file(config: RunConfig, writing: Writing) -> str:
    """The dataset file. Everything is written out, so nothing depends on sd-scripts' defaults."""
    buckets = config.buckets
    general: dict[str, Any] = {"batch_size": config.training.batch_size}
    if buckets.resolution is not None:
        general["resolution"] = _file_size(buckets.resolution)
    for name, key in subset_keys().items():
        if key.to.startswith("buckets."):
            value = getattr(buckets, key.to.removeprefix("buckets."))
            if value is not None:
                general[name] = value
    tables: list[dict[str, Any]] = []
    for index, dataset in enumerate(config.datasets):
        rows = tables[-1]["subsets"] if tables and tables[-1].get("_size") == dataset.resolution else []
        if not rows:
            table: dict[str, Any] = {"_size": dataset.resolution, "subsets": rows}
            if dataset.resolution is not None:
                table["resolution"] = _file_size(dataset.resolution)
            tables.append(table)
        rows.append(subset(dataset, index, writing))
    for table in tables:
        del table["_size"]
    return tomli_w.dumps({"general": general, "datasets": tables})


def subset(dataset: Dataset, index: int, writing: Writing) -> dict[str, Any]:
    prefix = f"datasets.{index}."
    row: dict[str, Any] = {"image_dir": dataset.path}
    named = _REPEATS.match(PurePath(dataset.path).name)
    if dataset.repeats is not None:
        row["num_repeats"] = dataset.repeats
        writing.mapped.append(Item(f"{prefix}repeats", dataset.repeats, {"num_repeats": dataset.repeats}))
    else:
        row["num_repeats"] = int(named[1]) if named else 1
        how = "the number of the folder's name" if named else "one, since a dataset file does not read folder names"
        writing.approximated.append(Item(f"{prefix}repeats", None, {"num_repeats": row["num_repeats"]}, how))
    if dataset.default_caption is not None:
        row["class_tokens"] = dataset.default_caption
        target = writing.mapped if dataset.default_caption else writing.idle
        target.append(Item(f"{prefix}default_caption", dataset.default_caption, {"class_tokens": row["class_tokens"]}))
    elif named:
        row["class_tokens"] = named[2]
        how = "the class of the folder's name"
        writing.approximated.append(Item(f"{prefix}default_caption", None, {"class_tokens": named[2]}, how))
    done = {"path": "image_dir"}
    if dataset.regularization:
        row["is_reg"] = True
    if dataset.masks:
        row["conditioning_data_dir"] = dataset.masks
    done |= {"regularization": "is_reg", "masks": "conditioning_data_dir", "resolution": "resolution"}
    for name, key in subset_keys().items():
        if key.to.startswith("datasets.") and name not in ("class_tokens", "caption_extention"):
            path = key.to.removeprefix("datasets.")
            value = WAYS[key.way].write(_get(dataset, path))
            done[path] = name
            if value != "" or path == "caption_extension":
                row[name] = value
    for path, name in done.items():
        writing.mapped.append(Item(prefix + path, _get(dataset, path), {name: row.get(name, _get(dataset, path))}))
    _left(dataset, index, {*done, "repeats", "default_caption"}, row, writing)
    return row


def _left(dataset: Dataset, index: int, done: set[str], row: dict[str, Any], writing: Writing) -> None:
    """What a dataset of ours says that sd-scripts cannot."""
    for path, info in dataset_settings().items():
        value = _get(dataset, path)
        if path in done or value == info.get_default(call_default_factory=True):
            continue
        if path == "captions.trigger":
            written = f"{dataset.captions.trigger}{dataset.captions.separator}"
            row["caption_prefix"] = " ".join(part for part in (written, dataset.captions.prefix) if part)
            how = "a prefix of every caption, also of those that begin with it"
            writing.approximated.append(Item(f"datasets.{index}.{path}", value, {"caption_prefix": written}, how))
            for item in [item for item in writing.mapped if item.key == f"datasets.{index}.captions.prefix"]:
                writing.mapped.remove(item)
                writing.approximated.append(Item(item.key, item.value, {"caption_prefix": row["caption_prefix"]}, how))
        else:
            why = {
                "strict": "sd-scripts ends or skips as it finds",
                "caption_column": "metadata.jsonl is not read there",
            }
            writing.refused.append(
                Item(f"datasets.{index}.{path}", value, {}, why.get(path, "sd-scripts has no such key"))
            )


def _get(section: Any, path: str) -> Any:
    for key in path.split("."):
        section = getattr(section, key)
    return section


def _file_size(size: Any) -> int | list[int]:
    width, height = both(size)
    return width if width == height else [width, height]
