"""`trainpilot publish`: a LoRA with its card to the Hugging Face Hub, private unless said otherwise."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from trainpilot.cli import package
from trainpilot.errors import ExitCode

HELP = "Publish a LoRA with its card and samples on the Hugging Face Hub (private by default)"
EXAMPLE = "trainpilot publish zorp --repo me/zorp-lora --dry-run"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lora", metavar="RUN|FILE", help="run by name or folder, or a LoRA file")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub; made if need be")
    parser.add_argument("--public", action="store_true", help="everybody may see it")
    parser.add_argument("--update", action="store_true", help="add a commit where the repository exists already")
    package.about(parser)
    parser.add_argument("--without-tags", action="store_true", help="leave the captions' tags out of the metadata")
    parser.add_argument("--include", action="append", default=[], metavar="FILE", help="a further file")
    parser.add_argument("--message", default="", help="message of the commit")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was sent as JSON")


def run(args: argparse.Namespace) -> int:
    from trainpilot.cli._options import workspace
    from trainpilot.formats.publication import prepared, send
    from trainpilot.formats.release import gather
    from trainpilot.runs.secrets import taken

    place = workspace(args)
    release = gather(
        place,
        args.lora,
        base_repo=args.base_repo,
        licence=args.licence,
        trigger=args.trigger,
        samples=not args.no_samples,
    )
    include = [Path(given) for given in args.include]
    with prepared(
        place, release, args.repo, private=not args.public, without_tags=args.without_tags, include=include
    ) as publication:
        files = [{"name": file.name, "bytes": file.size} for file in publication.files]
        document = {"repo": args.repo, "private": publication.private, "files": files, "warnings": publication.warnings}
        print(publication.text(), file=sys.stderr if args.json else sys.stdout, flush=True)
        if args.dry_run:
            print(json.dumps(document) if args.json else "nothing was sent (--dry-run)")
            return int(ExitCode.DONE)
        try:
            done = send(
                publication,
                taken().get("HF_TOKEN", ""),
                update=args.update,
                message=args.message,
                progress=lambda sent, name: print(f"  sending {name}", file=sys.stderr),
            )
        except KeyboardInterrupt:
            print("stopped before the commit; nothing is visible in the repository", file=sys.stderr)
            return int(ExitCode.STOPPED)
    print(
        json.dumps(document | {"url": done.url, "commit": done.commit}) if args.json else f"{done.url} ({done.commit})"
    )
    return int(ExitCode.DONE)
