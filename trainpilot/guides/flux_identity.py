"""The FLUX identity guide: a profile and the environment's variables become one command, in this one place.

Every script of the guide (`train_flux_fast.sh`, `train_flux_final.sh`, `train_dashboard.sh`) calls
`build_train_cmd.py`, which calls `main` here; so all of them run, and `DRY_RUN=1` shows, the identical command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainpilot.config.describe import from_text, settings
from trainpilot.config.layers import nest
from trainpilot.config.validate import validate
from trainpilot.errors import ExitCode, PilotError, Problems

PROFILES = {"fast": "flux_fast", "final": "flux_final"}
BASE = "flux-dev"  # where the catalogue's download goes, in models/
SETTINGS = {
    "SEED": "run.seed",
    "MAX_STEPS": "training.steps",
    "RANK": "network.rank",  # alpha follows it, unless ALPHA is set
    "ALPHA": "network.alpha",
    "LEARNING_RATE": "optimizer.learning_rate",
    "NOISE_OFFSET": "noise.offset",
    "DROPOUT": "network.dropout",
    "SNR_GAMMA": "loss.min_snr_gamma",
    "GRAD_ACCUM": "training.gradient_accumulation",
    "BATCH_SIZE": "training.batch_size",
    "RESOLUTION": "buckets.resolution",
    "OUT_DIR": "saving.links",
    "RESUME_FROM": "network.init_from",
}
_FILES = ("OUT_DIR", "RESUME_FROM")  # settings that are paths, relative to the guide's folder
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def build(root: Path, profile: str, environment: Mapping[str, str], *, today: str | None = None) -> list[str]:
    """The argv that trains: `trainpilot train` with everything that profile and environment say.

    root: the guide's folder, `lora_training` of a workspace; relative paths start there. today: YYYYMMDD, for the name
    of a run that has none. Raises Problems with every variable that cannot be used; an empty one counts as not set.
    """
    given = {name: value for name, value in environment.items() if value.strip()}
    problems: list[PilotError] = []
    if profile not in PROFILES:
        problems.append(PilotError("PROFILE", profile, " or ".join(PROFILES), "Choose one of the guide's profiles."))
    name = PROFILES.get(profile, profile)
    command = [*_trainpilot(), "train", "--profile", str(root / "configs" / f"{name}.toml")]
    command += ["--dataset", str(_inside(root, given.get("DATA_DIR", "data/subject")))]
    overrides: list[str] = []
    if _flag(given, "USE_REG", problems):
        command += ["--dataset", str(_regularization(root, problems))]
        overrides.append("datasets.1.regularization=true")
    base = given.get("MODEL_PATH", BASE)
    command += ["--base-model", str(_inside(root, base)) if _inside(root, base).exists() else base]
    command += ["--name", given.get("RUN_NAME") or f"{name}_{today or time.strftime('%Y%m%d')}"]
    command += ["--workspace", str(root.parent)]
    overrides += _checked(root, given, problems)
    if _flag(given, "FP8_BASE", problems):
        overrides.append("precision.base=fp8")
    prompts = root / "configs" / "sample_prompts.txt"
    if prompts.is_file():
        overrides.append(f"sampling.prompts_file={prompts}")
    if problems:
        raise Problems(problems)
    return command + [part for one in overrides for part in ("--set", one)]


def _trainpilot() -> list[str]:
    """The command as a person would type it, where it is on the PATH."""
    return ["trainpilot"] if shutil.which("trainpilot") else [sys.executable, "-m", "trainpilot"]


def _inside(root: Path, given: str) -> Path:
    return (root / Path(given.strip()).expanduser()).resolve()


def _flag(given: Mapping[str, str], variable: str, problems: list[PilotError]) -> bool:
    value = given.get(variable, "0").strip().lower()
    if value not in _FLAGS:
        problems.append(PilotError(variable, value, "1 or 0", f"Set {variable}=1, or leave it out."))
    return _FLAGS.get(value, False)


def _regularization(root: Path, problems: list[PilotError]) -> Path:
    folder = root / "data" / "regularization"
    if not folder.is_dir() or not any(folder.iterdir()):
        what = "nothing in it" if folder.is_dir() else "no such folder"
        remedy = f"Put pictures of the class (a person, not this person) into {folder}, or leave USE_REG out."
        problems.append(PilotError("USE_REG", f"{folder}: {what}", "pictures of the subject's class", remedy))
    return folder


def _checked(root: Path, given: Mapping[str, str], problems: list[PilotError]) -> list[str]:
    """`setting=value` for each variable that is set, checked by the setting's own declaration."""
    names = [name for name in SETTINGS if name in given]
    texts = {name: str(_inside(root, given[name])) if name in _FILES else given[name].strip() for name in names}
    values = {SETTINGS[name]: from_text(settings()[SETTINGS[name]], text) for name, text in texts.items()}
    _, wrong = validate(nest(values), {})
    by_setting = {path: variable for variable, path in SETTINGS.items()}
    for problem in wrong:
        variable = by_setting[str(problem.where)]
        remedy = f"It sets {problem.where}: correct it, or leave {variable} out for the profile's value."
        problems.append(PilotError(variable, given[variable], problem.allowed, remedy))
    return [f"{SETTINGS[name]}={text}" for name, text in texts.items()]


def main(root: Path, argv: Sequence[str] | None = None) -> int:
    """Print the command, or run it in this process's place. root: the guide's folder."""
    parser = argparse.ArgumentParser(
        prog="build_train_cmd.py",
        description="Turn a profile of the FLUX identity guide and the environment into one training command.",
        epilog="Variables: " + " ".join([*SETTINGS, "MODEL_PATH DATA_DIR RUN_NAME FP8_BASE USE_REG DRY_RUN PROFILE"]),
    )
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or "fast", help="fast or final (else $PROFILE)")
    parser.add_argument("--run", action="store_true", help="run the command, unless DRY_RUN=1; without it, only print")
    parser.add_argument("--dashboard", action="store_true", help="with --run: watch the run on a live dashboard")
    args = parser.parse_args(argv)
    try:
        command = build(root.resolve(), args.profile, os.environ)
        problems: list[PilotError] = []
        dry = _flag(os.environ, "DRY_RUN", problems)
        if problems:
            raise Problems(problems)
    except Problems as several:
        print(several.text(), file=sys.stderr)
        return int(ExitCode.BAD_INPUT)
    print(shlex.join(command), flush=True)
    if args.dashboard:
        command = [*_trainpilot(), "watch", "--workspace", str(root.resolve().parent), "--start", *command]
    if args.run and not dry:
        os.execvp(command[0], command)  # signals, exit code and terminal are the trainer's
    return int(ExitCode.DONE)
