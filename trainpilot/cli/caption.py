"""`trainpilot caption DATASET --with CAPTIONER`: captions for a whole dataset, by a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from trainpilot.cli import _options

if TYPE_CHECKING:
    from trainpilot.runs.stop import StopFlag
    from trainpilot.workspace import Workspace

HELP = "Write captions for a dataset with BLIP, Florence-2 or a WD tagger"
EXAMPLE = "trainpilot caption 10_mycat --with florence2 --trigger mycat --set task=paragraph"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="folder of pictures, or its name in datasets/")
    parser.add_argument("--with", dest="captioner", default="blip", metavar="CAPTIONER", help="which one (see --list)")
    parser.add_argument("--model", default="", help="a published model's name, a folder in models/, or a path")
    parser.add_argument("--trigger", default="", metavar="WORD", help="trigger word that every new caption begins with")
    mode = parser.add_mutually_exclusive_group()
    for name, help_ in (
        ("keep", "leave captions that are there (default)"),
        ("append", "put what is new behind them"),
        ("replace", "replace them; `trainpilot captions DATASET undo` brings them back"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=help_)
    parser.add_argument("--to-set", default="", metavar="NAME", help="keep them as a caption set, and write no file")
    parser.add_argument("--batch", type=int, metavar="N", help="pictures at once (default: by the device)")
    parser.add_argument(
        "--set", action="append", default=[], dest="options", metavar="KEY=VALUE", help="an option of the captioner"
    )
    parser.add_argument("--caption-extension", default=".txt", metavar=".EXT", help="ending of caption files")
    parser.add_argument("--caption-column", default="text", metavar="NAME", help="captions' field in metadata.jsonl")
    parser.add_argument("--list", action="store_true", help="show the captioners, their models and options")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; the rest goes to stderr")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._execute import execute
    from trainpilot.errors import ExitCode, PilotError
    from trainpilot.runs.jobdir import JobDir
    from trainpilot.runs.stop import StopFlag

    place = _options.workspace(args)
    if args.list:
        return _list(args, place)
    if not args.dataset:
        raise PilotError("dataset", "none", "a folder of pictures, or its name in datasets/", "Name one.")
    params: dict[str, Any] = {
        "dataset": args.dataset,
        "captioner": args.captioner,
        "model": args.model,
        "options": dict(_option(given) for given in args.options),
        "trigger": args.trigger,
        "mode": args.mode or "keep",
        "to_set": args.to_set,
        "caption_extension": args.caption_extension,
        "caption_column": args.caption_column,
    } | ({"batch": args.batch} if args.batch is not None else {})
    _check(place, params)
    with StopFlag() as stop:
        code = _fetched(args, place, stop)
        if code != ExitCode.DONE:
            return code
        return execute(JobDir.create(place, "caption", params, queue=False), stop, as_json=args.json)


def _option(given: str) -> tuple[str, str]:
    from trainpilot.errors import PilotError

    name, equals, value = given.partition("=")
    if not equals:
        raise PilotError("--set", given, "KEY=VALUE", "For example --set beams=5.")
    return name.strip(), value


def _check(place: Workspace, params: dict[str, Any]) -> None:
    """Everything that can be wrong with what was given, before gigabytes are fetched."""
    from trainpilot.captioners import check, find
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets import layouts, table
    from trainpilot.jobs import check as check_params
    from trainpilot.jobs import find as find_kind

    check(find(params["captioner"]), params["options"])
    check_params(find_kind("caption"), params)
    root = table.locate(Dataset.model_validate({"path": params["dataset"]}), place)
    layouts.discover(
        root, caption_extension=params["caption_extension"], caption_column=params["caption_column"]
    )  # fmt: skip


def _fetched(args: argparse.Namespace, place: Workspace, stop: StopFlag) -> int:
    """Fetch the captioner's model where it is not on disk: a download job of its own, which goes on when it was cut."""
    import sys

    from trainpilot.captioners import NotOnDisk, find, locate
    from trainpilot.cli._execute import execute
    from trainpilot.errors import ExitCode
    from trainpilot.runs.jobdir import JobDir

    try:
        locate(place, find(args.captioner), args.model)
    except NotOnDisk as missing:
        model = missing.model
        print(
            f"{model.label} is not on disk: fetching {model.repo} ({model.size_bytes / 1e9:.1f} GB, {model.licence})",
            file=sys.stderr,
        )
        code = execute(JobDir.create(place, "download", model.download, queue=False), stop, as_json=args.json)
        if code == ExitCode.DONE:
            locate(place, find(args.captioner), args.model)
        return code
    return int(ExitCode.DONE)


def _list(args: argparse.Namespace, place: Workspace) -> int:
    import json

    from rich.table import Table

    from trainpilot.captioners import NotOnDisk, captioners, locate

    table = Table(box=None, pad_edge=False)
    for title in ("captioner", "model", "size", "licence", "here", "options"):
        table.add_column(title, overflow="fold")
    rows = []
    for name, captioner in captioners().items():
        options = {key: field.default for key, field in captioner.Options.model_fields.items()}
        for number, model in enumerate(captioner.MODELS):
            try:
                here = str(locate(place, captioner, model.name)[0])
            except NotOnDisk:
                here = ""
            size = f"{model.size_bytes / 1e9:.1f} GB"
            shown = "  ".join(f"{key}={value}" for key, value in options.items()) if number == 0 else ""
            table.add_row("" if number else name, model.name, size, model.licence, "yes" if here else "", shown)
            rows.append(
                {"captioner": name, "model": model.name, "repo": model.repo, "size_bytes": model.size_bytes,
                 "licence": model.licence, "path": here, "options": options}
            )  # fmt: skip
    if args.json:
        print(json.dumps(rows))
    else:
        _options.console().print(table)
    return 0
