"""What is needed to make a run again: logs/<run>_command.txt, _repro.json, _pip_freeze.txt and _dataset_hash.txt.

Written before the first step of every attempt; an earlier attempt's files get its number, none is overwritten.
Used by the trainer, once the data is known.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Protocol

import trainpilot
from trainpilot.runs.atomic import read_json, write_beside, write_json
from trainpilot.runs.devices import gpus
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.secrets import redact

KINDS = ("command.txt", "repro.json", "pip_freeze.txt", "dataset_hash.txt")
REVISION_VARIABLES = ("PILOT_REVISION", "REVISION")


class _Picture(Protocol):
    @property
    def image(self) -> Path: ...
    @property
    def sha256(self) -> str: ...
    @property
    def repeats(self) -> int: ...
    @property
    def caption(self) -> str: ...


class Scanned(Protocol):
    """What this needs of `datasets.table.Table`."""

    @property
    def samples(self) -> Sequence[_Picture]: ...
    def fingerprint(self) -> str: ...


def write(run: RunDir, table: Scanned, *, command: Sequence[str] | None = None) -> list[Path]:
    """Write the four files of the present attempt and return their paths. command: argv; None takes this process's.

    No step depends on them, yet a run that cannot be made again is worth little: OSError where they cannot be written.
    """
    folder = run.workspace.logs
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{run.name}_{kind}" for kind in KINDS]
    before = read_json(paths[1])
    if before is not None and before.get("attempt") != run.attempt:
        for path, kind in zip(paths, KINDS, strict=True):
            if path.is_file():
                path.rename(folder / f"{run.name}_attempt{before.get('attempt')}_{kind}")
    argv = list(command or [sys.executable, "-m", "trainpilot", *sys.argv[1:]])
    again = f"trainpilot run {shlex.quote(str(run.path))}"
    text = f"{shlex.join(argv)}\n# in {Path.cwd()}; the same configuration again: {again}\n"
    write_beside(paths[0], redact(text).encode())
    write_json(paths[1], _record(run, table, argv))
    write_beside(paths[2], "".join(f"{line}\n" for line in installed()).encode())
    rows = [f"{s.sha256}  {s.repeats:>4}x  {s.image}" for s in table.samples]
    write_beside(
        paths[3], "\n".join([f"{table.fingerprint()}  whole dataset", *rows, ""]).encode("utf-8", "backslashreplace")
    )
    return paths


def _record(run: RunDir, table: Scanned, argv: Sequence[str]) -> dict[str, Any]:
    config = run.config
    found, why = gpus()
    versions = {name: number for name, _, number in (line.partition("==") for line in installed())}
    revision, source = revision_of(Path(trainpilot.__file__).resolve().parent.parent)
    return {
        "schema": 1,
        "run": run.name,
        "attempt": run.attempt,
        "t": time.time(),
        "command": [redact(word) for word in argv],
        "git_hash": revision,
        "git_hash_from": source,
        "trainpilot": trainpilot.__version__,
        "seed": config.run.seed,
        "dataset_hash": table.fingerprint(),
        "images": len(table.samples),
        "hyperparameters": config.model_dump(mode="json"),
        "sources": run.resolved.sources,
        "gpus": found,
        "no_gpu_because": why or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": {name: versions[name] for name in sorted(versions) if name in _TELLING},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


_TELLING = {
    "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "bitsandbytes", "xformers",
    "numpy", "pillow", "prodigyopt", "schedulefree", "lion-pytorch", "triton",
}  # fmt: skip
# Variables that change what is computed, by name: the whole environment would carry secrets.
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTORCH_CUDA_ALLOC_CONF",
    "OMP_NUM_THREADS",
    "WORLD_SIZE",
)


def installed() -> list[str]:
    """`name==version` of every installed package, as pip freeze lists them."""
    found = {(one.metadata["Name"] or "").lower().replace("_", "-"): one.version for one in distributions()}
    return [f"{name}=={number}" for name, number in sorted(found.items()) if name]


def revision_of(project: Path) -> tuple[str | None, str]:
    """The commit of the program and where that is known from; "-dirty" is added where files differ from it."""
    if (project / ".git").exists():
        try:
            head = _git(project, "rev-parse", "HEAD")
            dirty = _git(project, "status", "--porcelain", "--untracked-files=no", "--", "trainpilot")
            return head + ("-dirty" if dirty else ""), "git"
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"git does not answer: {error}"
    else:
        problem = "not a git checkout"
    for name in REVISION_VARIABLES:
        if os.environ.get(name):
            return os.environ[name], f"environment {name}"
    return None, problem


def _git(project: Path, *words: str) -> str:
    # safe.directory: the checkout may belong to another user than the one that trains.
    command = ["git", "-c", f"safe.directory={project}", "-C", str(project), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
