"""`trainpilot captions DATASET DO`: look at the captions of a dataset, change them all at once, and undo it.

The operations are the files of `trainpilot.datasets.caption_edits`; their options are made from their parameters.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from trainpilot.cli import _options

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from trainpilot.datasets.caption_files import CaptionFiles
    from trainpilot.datasets.caption_journal import Turned
    from trainpilot.datasets.caption_tools import Preview

HELP = "Look at a dataset's captions, change them all at once, and undo it"
EXAMPLE = "trainpilot captions 10_zorp add-trigger zorp --dry-run && trainpilot captions 10_zorp undo"
SHOWN = 12  # changes in a diff, unless --all


def arguments(parser: argparse.ArgumentParser) -> None:
    from trainpilot.datasets.caption_edits import operations

    parser.add_argument("dataset", metavar="DATASET", help="folder of pictures: a path, or a name in datasets/")
    verbs = parser.add_subparsers(dest="do", metavar="DO", required=True)
    changing = []
    for name, operation in operations().items():
        sub = verbs.add_parser(
            name, help=operation.HELP, epilog=f"example: trainpilot captions mine {operation.EXAMPLE}"
        )
        _parameters(sub, operation.Params)
        changing.append(sub)
    use = verbs.add_parser("use", help="take the captions from a set; from several, each becomes a line of them")
    use.add_argument("sets", nargs="+", metavar="SET", help="name of a set")
    for sub in (*changing, use):
        sub.add_argument("--dry-run", action="store_true", help="only show what would change")
        sub.add_argument("--all", action="store_true", help=f"show every change, not the first {SHOWN}")
    save = verbs.add_parser("save", help="keep the captions as a set of that name")
    save.add_argument("set", metavar="NAME", help="a name that no set has")
    compare = verbs.add_parser("compare", help="the captions of two sets beside one another; `now` is the present ones")
    compare.add_argument("one", metavar="A")
    compare.add_argument("other", metavar="B", nargs="?", default="now")
    undo = verbs.add_parser("undo", help="take the last edit, or what a captioner wrote, back")
    redo = verbs.add_parser("redo", help="make the edit again that was undone last")
    for sub in (undo, redo):
        sub.add_argument("--leave-changed", action="store_true", help="leave files as they are that changed since")
    tags = verbs.add_parser("tags", help="how many captions have each tag")
    pairs = verbs.add_parser("together", help="which tags are in the same captions")
    for sub in (tags, pairs):
        sub.add_argument("--most", type=int, default=50, metavar="N", help="rows to show (default: 50)")
    suggest = verbs.add_parser("suggest", help="tags that probably describe the subject, to prune")
    suggest.add_argument("--trigger", default="", help="trigger word, which is left out")
    preview = verbs.add_parser("preview", help="what some epochs would see: shuffled, tags dropped")
    _preview_options(preview)
    sets, history = verbs.add_parser("sets", help="the sets there are"), verbs.add_parser("history", help="all edits")
    for sub in (*changing, use, save, compare, undo, redo, tags, pairs, suggest, preview, sets, history):
        sub.add_argument("--workspace", metavar="DIR", help="workspace folder")
        sub.add_argument("--caption-extension", default=".txt", metavar=".EXT", help="ending of caption files")
        sub.add_argument("--caption-column", default="text", metavar="NAME", help="captions' field in metadata.jsonl")
        sub.add_argument("--json", action="store_true", help="print JSON")


def _parameters(parser: argparse.ArgumentParser, params: type[BaseModel]) -> None:
    """Options from a model: required fields by their place, flags for bool, --name for the rest."""
    for name, field in params.model_fields.items():
        shown = (field.alias or name).replace("_", "-")
        many = str(field.annotation).startswith("list")
        if field.annotation is bool:
            parser.add_argument(f"--{shown}", dest=name, action="store_true", help=field.description)
        elif field.is_required():
            parser.add_argument(
                name, nargs="+" if many else None, metavar=shown.upper(), help=field.description
            )  # fmt: skip
        elif name.endswith("_"):  # a word of Python's, such as `with`: read best by its place
            parser.add_argument(
                name, nargs="?", default=field.default, metavar=shown.upper(), help=field.description
            )  # fmt: skip
        else:
            parser.add_argument(f"--{shown}", dest=name, default=field.default, help=field.description)


def _preview_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=4, metavar="N", help="draws of each caption (default: 4)")
    parser.add_argument("--captions", type=int, default=3, metavar="N", help="captions to show (default: 3)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--set", action="append", default=[], dest="rules", metavar="KEY=VALUE",
        help="a setting of datasets.captions: shuffle=true, keep_tokens=1, tag_dropout_rate=0.1 ... (default: shuffle)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from trainpilot.datasets import caption_files, caption_sets, caption_tags
    from trainpilot.datasets.caption_edits import operations
    from trainpilot.datasets.caption_journal import Journal
    from trainpilot.errors import ExitCode
    from trainpilot.template import check_writable

    place, root = _dataset(args)
    files = caption_files.read(root, caption_extension=args.caption_extension, caption_column=args.caption_column)
    console, journal, texts = _options.console(), Journal(files.root), files.texts
    rows: list[Any]
    if args.do in operations() or args.do == "use":
        return _change(args, files, console, place)
    if args.do in ("undo", "redo"):
        check_writable(place)
        turn = journal.undo if args.do == "undo" else journal.redo
        return _tell_turned(args, turn(leave_changed=args.leave_changed))
    if args.do == "save":
        check_writable(place)
        path = caption_sets.save(files.root, args.set, caption_sets.present(files))
        print(json.dumps({"set": str(path)}) if args.json else f"{len(texts)} captions kept as {args.set}")
        return int(ExitCode.DONE)
    if args.do == "tags":
        rows = caption_tags.count(texts.values())[: args.most]
    elif args.do == "together":
        rows = caption_tags.together(texts.values(), most=args.most)
    elif args.do == "suggest":
        rows = caption_tags.suggest(texts, args.trigger)
    elif args.do == "preview":
        rows = _draws(args, texts)
    elif args.do == "compare":
        rows = _compared(args, files)
    else:
        rows = caption_sets.sets(files.root) if args.do == "sets" else journal.edits()
    records = [row if isinstance(row, dict) else asdict(row) for row in rows]
    if args.json:
        print(json.dumps(records))
    else:
        _table(console, records, f"nothing to show: {len(texts)} captions in {files.root}")
    return int(ExitCode.DONE)


def _dataset(args: argparse.Namespace) -> tuple[Any, Any]:
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets.table import locate

    place = _options.workspace(args)
    return place, locate(Dataset.model_validate({"path": args.dataset}), place)


def _change(args: argparse.Namespace, files: CaptionFiles, console: Console, place: Any) -> int:
    """An operation, or the use of sets: shown, and made unless --dry-run."""
    import json
    from dataclasses import asdict

    from trainpilot.datasets import caption_edits, caption_sets, caption_tools
    from trainpilot.template import check_writable

    if args.do == "use":
        chosen = [caption_sets.read(files.root, name) for name in args.sets]
        texts, notes = caption_sets.changes(files, chosen[0] if len(chosen) == 1 else caption_sets.as_lines(chosen))
        files.notes += notes
        wanted = caption_tools.of_texts(files, f"captions of {' and '.join(args.sets)}", texts)
    else:
        operation = caption_edits.find(args.do)
        given = {(field.alias or name): getattr(args, name) for name, field in operation.Params.model_fields.items()}
        wanted = caption_tools.preview(files, operation, caption_edits.check(operation, given))
    edit = None
    if not args.dry_run:
        check_writable(place)
        edit = caption_tools.apply(files, wanted)
    if args.json:
        rows = [asdict(change) for change in wanted.changes]
        print(json.dumps({"changes": rows, "edit": asdict(edit) if edit else None, "notes": files.notes}))
        return 0
    _diff(console, wanted, len(wanted.changes) if args.all else SHOWN)
    for note in files.notes:
        console.print(note, highlight=False, markup=False)
    without = len(files.places) - len(files.texts)
    print(f"{wanted.about}: {len(wanted.changes)} of {len(files.texts)} captions"
          f"{f', {without} pictures have none' if without else ''}")  # fmt: skip
    if edit:
        print(f"undo with: trainpilot captions {args.dataset} undo")
    elif wanted.changes:
        print("nothing was written (--dry-run)")
    return 0


def _diff(console: Console, wanted: Preview, most: int) -> None:
    from rich.text import Text

    for change in wanted.changes[:most]:
        console.print(Text(change.picture, style="bold"))
        if change.before is not None:
            console.print(Text(f"- {change.before}", style="red"))
        if change.after is not None:
            console.print(Text(f"+ {change.after}", style="green"))
    if len(wanted.changes) > most:
        print(f"and {len(wanted.changes) - most} more (--all shows them)")


def _tell_turned(args: argparse.Namespace, turned: Turned) -> int:
    import json
    from dataclasses import asdict

    if args.json:
        print(json.dumps(asdict(turned)))
        return 0
    word = "undone" if args.do == "undo" else "made again"
    print(f"{turned.edit.about}: {word}, {turned.files} files")
    for name in turned.left:
        print(f"  changed since, left as it is: {name}")
    return 0


def _draws(args: argparse.Namespace, texts: dict[str, str]) -> list[dict[str, object]]:
    from pydantic import ValidationError

    from trainpilot.config.schema import Captions
    from trainpilot.datasets.caption_tags import draws
    from trainpilot.errors import PilotError

    given = dict(rule.partition("=")[::2] for rule in args.rules) or {"shuffle": "true"}
    try:
        rules = Captions.model_validate(given, strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--set {'.'.join(map(str, first['loc']))}"
        raise PilotError(where, first.get("input"), ", ".join(Captions.model_fields), "Correct it.") from error
    return [
        {"picture": name, "epoch": epoch + 1, "caption": caption}
        for number, (name, text) in enumerate(list(texts.items())[: args.captions])
        for epoch, caption in enumerate(draws(text, rules, seed=args.seed, number=number, of=args.epochs))
    ]


def _compared(args: argparse.Namespace, files: CaptionFiles) -> list[dict[str, object]]:
    from trainpilot.datasets import caption_sets

    one, other = (
        caption_sets.present(files) if name == caption_sets.NOW else caption_sets.read(files.root, name)
        for name in (args.one, args.other)
    )
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return [{"picture": name, args.one: one.get(name), args.other: other.get(name)} for name in names]


def _table(console: Console, records: list[dict[str, object]], empty: str) -> None:
    from rich.table import Table
    from rich.text import Text

    if not records:
        print(empty)
        return
    table = Table(box=None, pad_edge=False)
    for name in records[0]:
        table.add_column("when" if name == "t" else name, overflow="fold")
    for record in records:
        table.add_row(*(Text(_shown(name, value)) for name, value in record.items()))
    console.print(table)


def _shown(name: str, value: object) -> str:
    if name == "t" and isinstance(value, (int, float)):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value))
    if name == "share" and isinstance(value, float):
        return f"{value:.0%}"
    return "" if value is None else str(value)
