"""`trainpilot grid`: pictures over checkpoints, strengths, prompts, seeds, samplers, steps and guidance, on sheets."""

from __future__ import annotations

import argparse
import json

HELP = "Make an X/Y/Z grid of pictures over checkpoints, strengths, prompts, seeds and sampler settings"
EXAMPLE = 'trainpilot grid "zorp on a hill" "a hill" --run zorp --strength 0.5,0.8,1.0 --seed 1,2'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="prompts, one axis of the grid")
    parser.add_argument("--run", metavar="RUN", help="its checkpoints are the axis lora, its base model is the base")
    parser.add_argument("--checkpoints", type=int, default=0, metavar="N", help="at most N of them, evenly; 0 is all")
    parser.add_argument("--base", metavar="MODEL", help="base model: a path, or its name in models/")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE", help="a LoRA file of the axis lora; '' is the base alone"
    )
    parser.add_argument("--strength", default="1", metavar="A,B,...", help="strengths (default: 1)")
    parser.add_argument("--seed", default="42", metavar="A,B,...", help="seeds (default: 42)")
    parser.add_argument("--sampler", default="auto", metavar="A,B,...", help="samplers (default: the family's)")
    parser.add_argument("--steps", default="20", metavar="A,B,...", help="steps of the sampler (default: 20)")
    parser.add_argument("--guidance", default="", metavar="A,B,...", help="guidance scales (default: the family's)")
    parser.add_argument(
        "--beside", action="append", default=[], metavar="FILE[:STRENGTH]", help="a LoRA that every cell has as well"
    )
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--size", metavar="WxH", help="size in pixels (default: the model's)")
    parser.add_argument("--x", default="strength", metavar="AXIS", help="axis across (default: strength)")
    parser.add_argument("--y", default="lora", metavar="AXIS", help="axis down (default: lora)")
    parser.add_argument("--title", default="", help="what the sheets are headed with")
    parser.add_argument("--queue", action="store_true", help="leave it to the worker, which lets training go first")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def run(args: argparse.Namespace) -> int:
    import sys
    from contextlib import redirect_stdout

    from trainpilot.cli._execute import execute
    from trainpilot.cli._options import workspace
    from trainpilot.errors import ExitCode
    from trainpilot.runs.jobdir import JobDir
    from trainpilot.runs.stop import StopFlag

    job = JobDir.create(workspace(args), "grid", _params(args), queue=args.queue)
    if args.queue:
        print(json.dumps({"job": job.name}) if args.json else f"queued: {job.path}")
        return int(ExitCode.DONE)
    with StopFlag() as stop, redirect_stdout(sys.stderr if args.json else sys.stdout):
        code = execute(job, stop)
    if code == ExitCode.DONE:
        if args.json:
            document = json.loads((job.path / "grid.json").read_text(encoding="utf-8"))
            print(json.dumps({"folder": str(job.path), **document}))
        else:
            print("\n".join(str(path) for path in [*sorted(job.path.glob("sheet-*.png")), job.path / "contact.png"]))
    return code


def _params(args: argparse.Namespace) -> dict[str, object]:
    from trainpilot.cli.sample import size_of

    width, height = size_of(args.size) if args.size else (None, None)
    given = {
        "base": args.base,
        "run": args.run,
        "checkpoints": args.checkpoints,
        "loras": [_absolute(file) for file in args.lora],
        "strengths": _numbers("--strength", args.strength, float),
        "prompts": args.prompts,
        "seeds": _numbers("--seed", args.seed, int),
        "samplers": [name.strip() for name in args.sampler.split(",")],
        "steps": _numbers("--steps", args.steps, int),
        "guidances": _numbers("--guidance", args.guidance, float) if args.guidance else None,
        "beside": [_beside(one) for one in args.beside],
        "negative": args.negative,
        "width": width,
        "height": height,
        "x": args.x,
        "y": args.y,
        "title": args.title,
    }
    return {name: value for name, value in given.items() if value}


def _numbers(where: str, given: str, kind: type[int] | type[float]) -> list[int] | list[float]:
    from trainpilot.errors import PilotError

    try:
        return [kind(part) for part in given.split(",")]
    except ValueError as error:
        raise PilotError(where, given, "numbers with commas between them", "For example 1,2.") from error


def _beside(given: str) -> dict[str, object]:
    """FILE or FILE:STRENGTH; a file may have a colon in its name."""
    path, _, strength = given.rpartition(":")
    try:
        return {"lora": _absolute(path), "strength": float(strength)} if path else {"lora": _absolute(given)}
    except ValueError:
        return {"lora": _absolute(given)}


def _absolute(file: str) -> str:
    """A file from here by its whole path; a name in models/loras stays one."""
    from pathlib import Path

    return str(Path(file).resolve()) if file and Path(file).is_file() else file
