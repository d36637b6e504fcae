"""`python -m scripts.pilot_tiny STAGE`: tokenizer, demo-data, vae, clip, unet, measure, install, or all in order.

Needs the training packages (`bash scripts/setup.sh`), no network and no GPU; two cores need about two hours for all.
"""

import argparse
import json
import shutil
from pathlib import Path

from . import card, clip, demo_data, generate, measure, scenes, tokenizer, unet, vae

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"
# The U-Net takes its text encoder from the CLIP, which therefore comes first.
STAGES = ("tokenizer", "demo-data", "vae", "clip", "unet", "measure", "install")


def _measure(work: Path) -> None:
    wanted = measure.measured_scenes(200)
    pictures = generate.pictures(work / "export", wanted)
    found = {
        "scenes": len(wanted),
        "steps": generate.STEPS,
        "guidance": generate.GUIDANCE,
        "pixels": measure.accuracy(pictures, wanted),
        "clip": clip.accuracy(work / "clip", pictures, wanted),
        "clip_on_drawings": clip.accuracy(work / "clip", [scenes.draw(scene) for scene in wanted], wanted),
        "vae_demo_db": vae.demo_quality(work / "export" / "vae"),
    }
    generate.sheet(pictures[:48], work / "sheet.png")
    (work / "quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _install(work: Path) -> None:
    models = TEMPLATE / "models"
    for source, name in ((work / "export", "pilot-tiny"), (work / "clip", "pilot-tiny-clip")):
        beside = models / f".{name}.new"
        shutil.copytree(source, beside)
        if (models / name).exists():
            shutil.rmtree(models / name)
        beside.rename(models / name)
    card.write(models, json.loads((work / "quality.json").read_text()))


def main() -> None:
    """Run the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pilot_tiny", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, default=Path("build/pilot-tiny"), help="folder of checkpoints and logs")
    parser.add_argument("--minutes", type=float, help="time to train (vae 15, unet 60, clip 10 where not said)")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if args.stage == "all" else (args.stage,):
        print(f"== {stage}", flush=True)
        match stage:
            case "tokenizer":
                tokenizer.build(args.work / "tokenizer")
            case "demo-data":
                demo_data.write(TEMPLATE / "datasets" / "images" / "10_zorp")
            case "vae":
                vae.train(args.work, args.minutes or 15)
            case "unet":
                unet.train(args.work, args.minutes or 60)
            case "clip":
                clip.train(args.work, args.minutes or 10)
            case "measure":
                _measure(args.work)
            case "install":
                _install(args.work)


if __name__ == "__main__":
    main()
