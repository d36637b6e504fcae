"""`trainpilot evaluate RUN`: which checkpoint, at which strength, and how sure that is."""

from __future__ import annotations

import argparse
import json

HELP = "Judge a run's checkpoints at several strengths, recommend one, and write the report"
EXAMPLE = "trainpilot evaluate zorp --class creature --against models/loras/older.safetensors"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run by its name or its folder")
    parser.add_argument("--protocol", metavar="P", help="protocol by name or .toml file (default: the base model's)")
    parser.add_argument("--trigger", metavar="WORD", help="trigger word (default: found in the captions)")
    parser.add_argument("--class", dest="class_word", metavar="WORD", help="what the subject is: woman, dog, car")
    parser.add_argument("--checkpoints", type=int, metavar="N", help="judge at most N checkpoints, evenly over the run")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of each prompt; more make narrower intervals")
    parser.add_argument("--strengths", metavar="A,B,...", help="strengths to try (default: the protocol's)")
    parser.add_argument("--swept", type=int, metavar="N", help="leading checkpoints at every strength; 0 is all")
    parser.add_argument("--against", nargs="+", default=[], metavar="FILE", help="LoRA files to compare with")
    parser.add_argument("--held-out", metavar="DIR", help="pictures the run was not trained on, for a validation loss")
    parser.add_argument("--queue", action="store_true", help="leave it to the worker, which lets training go first")
    parser.add_argument("--workspace", metavar="DIR", help="workspace folder (else PILOT_WORKSPACE, else ./workspace)")
    parser.add_argument("--json", action="store_true", help="print the recommendation as JSON")


def run(args: argparse.Namespace) -> int:
    import sys
    from contextlib import redirect_stdout
    from pathlib import Path

    from trainpilot.cli._execute import execute
    from trainpilot.cli._options import workspace
    from trainpilot.errors import ExitCode
    from trainpilot.runs.jobdir import JobDir
    from trainpilot.runs.rundir import RunDir
    from trainpilot.runs.stop import StopFlag

    place = workspace(args)
    judged = RunDir.find(place, args.run)
    given = {
        "run": judged.name if judged.path.parent == place.outputs else str(judged.path),
        "protocol": args.protocol,
        "trigger": args.trigger,
        "class_word": args.class_word,
        "checkpoints": args.checkpoints,
        "seeds": args.seeds,
        "strengths": _strengths(args.strengths) if args.strengths else None,
        "swept": args.swept,
        "against": [str(Path(file).expanduser().resolve()) if Path(file).exists() else file for file in args.against],
        "held_out": str(Path(args.held_out).expanduser().resolve()) if args.held_out else None,
    }
    job = JobDir.create(place, "evaluate", {name: value for name, value in given.items() if value}, queue=args.queue)
    if args.queue:
        print(json.dumps({"job": job.name}) if args.json else f"queued: {job.path}")
        return int(ExitCode.DONE)
    # A program reads one document: the recommendation. What the job says on its way goes to the other stream.
    with StopFlag() as stop, redirect_stdout(sys.stderr if args.json else sys.stdout):
        code = execute(job, stop)
    document = judged.report / "evaluation.json"
    if code == ExitCode.DONE:
        found = json.loads(document.read_text(encoding="utf-8"))
        print(json.dumps(found["recommendation"]) if args.json else _told(found, judged.report / "evaluation.html"))
    return code


def _strengths(given: str) -> list[float]:
    from trainpilot.errors import PilotError

    try:
        return [float(part) for part in given.split(",")]
    except ValueError as error:
        raise PilotError(
            "--strengths", given, "numbers with commas between them", "For example 0.5,0.8,1.0."
        ) from error


def _told(found: dict, page: object) -> str:
    best = found["recommendation"]
    lines = [best["reason"], found["advice"]]
    if best["file"]:
        lines.append(f"file    {best['file']}\nstrength {best['strength']:g}")
    return "\n".join([*lines, f"report  {page}"])
