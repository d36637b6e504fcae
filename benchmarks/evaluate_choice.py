"""Does the evaluation recommend what an independent measure finds good? On pilot-tiny, with the demo's character.

For each seed a run is trained from far too short to far too long and keeps twelve checkpoints. `trainpilot evaluate`'s
own code judges them; then the checkpoints are ranked by something that shares nothing with it, neither model nor
prompts nor seeds: the likeness of painted zorps to held-out drawings, edge by edge (scripts/pilot_tiny/likeness.py),
and the share of attributes (colour, position, background) that the pixels show as the prompt says
(scripts/pilot_tiny/measure.py). Both are put on scales whose 1 is what real drawings reach, the rank is by their
harmonic mean. The recommendation has to be among the first three, and the two ends have to be named for what they are.

    python benchmarks/evaluate_choice.py [--seeds 5] [--steps 8] [--write]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.config.merge import resolve
from trainpilot.evaluate import diagnosis, record
from trainpilot.evaluate.album import Album, Order
from trainpilot.evaluate.choosing import harmonic
from trainpilot.evaluate.easel import Easel
from trainpilot.evaluate.evaluation import Evaluated, Voice, Wanted, evaluate
from trainpilot.evaluate.painter import Painter
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

# The character and the measures belong to the making of pilot-tiny, which is a folder of scripts and not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.pilot_tiny import demo_data, measure, zorp
from scripts.pilot_tiny.likeness import another, likeness, normalised

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "workspace-template"
KEPT = (10, 20, 40, 60, 80, 120, 160, 200, 240, 300, 380, 480)  # steps of the twelve checkpoints
EVERY = 10
HELD_OUT = 12
FIRST_SEED = 7000
TOP = 3
SETTINGS = (
    "training.batch_size=2",
    "optimizer.learning_rate=3e-3",
    "schedule.name=constant",
    f"training.steps={KEPT[-1]}",
    f"saving.every_steps={EVERY}",
    "saving.keep=0",
    "sampling.every_steps=0",
    "sampling.evaluate_at_end=false",
    "logging.tensorboard=false",
)


def train(place: Workspace, seed: int) -> RunDir:
    """The run, with the twelve checkpoints alone."""
    from trainpilot.cli._execute import execute
    from trainpilot.runs.stop import StopFlag

    resolved = resolve(
        place,
        profile="demo",
        overrides=[*SETTINGS, f"run.seed={seed}"],
        direct={"datasets": [{"path": "images/10_zorp"}], "model.base": "pilot-tiny", "run.name": f"seed-{seed}"},
    )
    run = RunDir.create(place, resolved)
    if execute(run, StopFlag()) != 0:
        raise SystemExit(f"training failed: {run.log}")
    for folder in run.checkpoints.glob("step-*"):
        if int(folder.name.removeprefix("step-")) not in KEPT:
            shutil.rmtree(folder)
    return RunDir.open(run.path, place)


def judge(run: RunDir, steps: int) -> Evaluated:
    """The evaluation as `trainpilot evaluate` makes it, with fewer steps and seeds: the cores are few."""
    text = (ROOT / "trainpilot" / "evaluate" / "protocol-pilot-tiny.toml").read_text(encoding="utf-8")
    short = run.path / "short.toml"
    short.write_text(text.replace("steps = 20", f"steps = {steps}"), encoding="utf-8")
    wanted = Wanted(protocol=str(short), seeds=2, strengths=(0.5, 0.8, 1.0, 1.2), swept=1)
    quiet = Voice(lambda text: None, lambda name, of: print(f"  {name}: {of}", flush=True), lambda done, of: None, int)
    found = evaluate(run, wanted, quiet)
    record.write(found)
    return found


def independent(run: RunDir, found: Evaluated, steps: int) -> list[dict[str, float]]:
    """likeness and attributes of each checkpoint, and their harmonic mean; 1 is what real drawings reach."""
    wanted = demo_data.held_out(HELD_OUT)
    easel = Easel(found.base, found.device)
    painter = Painter(easel, Album(run.workspace, found.base, easel.settings, int), int)
    from trainpilot.config.prompts import Prompt

    prompts = [
        Prompt(zorp.caption(one), "", 64, 64, FIRST_SEED + number, steps, 5.0, sampler="dpmpp_2m_karras")
        for number, one in enumerate(wanted)
    ]
    sets = [(), *(((one.file, 1.0),) for one in found.checkpoints)]
    files = painter.paint([Order(prompt, loras) for loras in sets for prompt in prompts])
    pictures = [Image.open(file).convert("RGB") for file in files]
    rows = [pictures[start : start + HELD_OUT] for start in range(0, len(pictures), HELD_OUT)]
    drawings = [zorp.draw(another(one, number)) for number, one in enumerate(wanted)]
    base, real = (_likeness(row, wanted) for row in (rows[0], drawings))
    best_possible = _attributes(drawings, wanted)
    answers = []
    for row in rows[1:]:
        alike = float(np.mean(normalised(_likeness(row, wanted), base, real)))
        follows = _attributes(row, wanted) / best_possible
        both = float(harmonic(np.array([alike]), np.array([follows]))[0])
        answers.append({"likeness": alike, "attributes": follows, "both": both})
    return answers


def _likeness(pictures: list[Image.Image], wanted: list[zorp.Zorp]) -> list[float]:
    return [likeness(picture, one) for picture, one in zip(pictures, wanted, strict=True)]


def _attributes(pictures: list[Image.Image], wanted: list[zorp.Zorp]) -> float:
    """Share of colours, positions and backgrounds that the pixels show as the prompt says."""
    right = 0
    for picture, one in zip(pictures, wanted, strict=True):
        seen = measure.look(picture)
        right += (seen.colour == one.colour) + (seen.position == one.position) + (seen.background == one.background)
    return right / (3 * len(wanted))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="runs to train and judge (default 1; the claim is for 5)")
    parser.add_argument("--steps", type=int, default=8, help="steps of the sampler (default 8)")
    parser.add_argument("--keep", type=Path, help="workspace to leave the runs and their reports in")
    parser.add_argument("--write", action="store_true", help="keep the result under benchmarks/results")
    given = parser.parse_args()
    os.environ.setdefault("PILOT_DEVICE", "cpu")
    rows: list[dict[str, object]] = []
    hits = ends = 0
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="choice-") as folder:
        place = Workspace(given.keep.resolve() if given.keep else Path(folder))
        for name in ("models", "datasets"):
            shutil.copytree(TEMPLATE / name, place.root / name, dirs_exist_ok=True)
        for seed in range(1, given.seeds + 1):
            began = time.process_time()
            run = train(place, seed)
            trained = time.process_time()
            found = judge(run, given.steps)
            judged = time.process_time()
            truth = independent(run, found, given.steps)
            seconds[f"seed {seed}"] = time.process_time() - began
            print(
                f"seed {seed}: training {trained - began:.0f} s, evaluation {judged - trained:.0f} s of the processor"
            )
            choice = found.choice
            assert choice is not None
            order = sorted(range(len(truth)), key=lambda number: -truth[number]["both"])
            states = {
                one.checkpoint: one.state
                for one in diagnosis.diagnose(found.at_reference, choice, record.copies(found))
            }
            names = [one.name for one in found.checkpoints]
            scores = {one.cell.checkpoint: one.score for one in choice.scored if one.cell in found.at_reference}
            for number, name in enumerate(names):
                rows.append(
                    {
                        "seed": seed,
                        "checkpoint": name,
                        "score": scores[name].mean,
                        "±": scores[name].half,
                        "state": states[name],
                        **truth[number],
                        "rank": order.index(number) + 1,
                        "recommended": "<" if name == choice.best.cell.checkpoint else "",
                    }
                )
            rank = order.index(names.index(choice.best.cell.checkpoint)) + 1
            print(f"  {choice.reason}\n  its rank by the pixels: {rank}", flush=True)
            hits += rank <= TOP
            ends += states[names[0]] == "undertrained" and states[names[-1]] == "overtrained"
    figures = [
        Figure("choice_recommended_in_top_three", hits, f"of_{given.seeds}", ">=", given.seeds),
        Figure("choice_ends_named", ends, f"of_{given.seeds}", ">=", given.seeds),
    ]
    out = RESULTS / "evaluate_choice_cpu.json" if given.write else None
    return finish("evaluate_choice", figures, rows, out=out, load=os.getloadavg(), seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
