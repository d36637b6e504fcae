"""Run folders as the trainer leaves them, made by its own classes without training. For the panel's tests."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.errors import ExitCode
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

PROMPTS = ("zorp in a forest, morning light", "portrait of zorp, studio", "zorp as a watercolour")


def with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one look read everything, however busy the machine is."""
    monkeypatch.setattr("controlpilot.views.run_index.BUDGET", 60.0)
    monkeypatch.setattr("controlpilot.views.course.BUDGET", 60.0)


def config(name: str, steps: int = 100, **more: Any) -> RunConfig:
    """A configuration that needs no base model on disk."""
    tables: dict[str, Any] = {
        "run": {"name": name},
        "profile": "standard",
        "model": {"base": "/models/pilot-tiny", "family": "sd15"},
        "datasets": [{"path": "/data/10_zorp"}],
        "training": {"steps": steps},
        "saving": {"every_steps": 20},
        "sampling": {"every_steps": 20},
    }
    for path, value in more.items():
        section, _, key = path.partition("__")
        tables.setdefault(section, {})[key] = value
    return RunConfig.model_validate(tables)


def new(workspace: Workspace, name: str, steps: int = 100, plan: dict[str, Any] | None = None, **more: Any) -> RunDir:
    """A run folder with its configuration and its plan, as the wizard makes it."""
    sources = {"training.steps": "--set", "model.base": "--base-model", "profile": "--profile"}
    told = {"steps": steps, "seconds_per_step": 0.5, "seconds": steps * 0.5} | (plan or {})
    return RunDir.create(workspace, Resolved(config(name, steps, **more), sources, ["decided: nothing"]), told)


def train(
    run: RunDir,
    first: int,
    last: int,
    *,
    of: int = 100,
    samples: bool = False,
    every: int = 20,
    seed: int = 1,
    **over: Any,
) -> None:
    """The events of steps first..last of the present attempt, with checkpoints and samples at every so many."""
    noise = random.Random(seed)
    run.events.append("start", from_step=first, of=of)
    for step in range(first, last + 1):
        told = {
            "loss": 0.12 * math.exp(-step / (of / 2)) + 0.05 + noise.gauss(0, 0.012),
            "lr": 1e-4 * min(1, step / 10) * (0.5 + 0.5 * math.cos(math.pi * step / of)),
            "it_s": 2.0 + noise.gauss(0, 0.05),
            "images_s": 4.0,
            "vram_gb": 7.42,
            "grad_norm": 0.4 + abs(noise.gauss(0, 0.1)),
        } | {key: value(step) if callable(value) else value for key, value in over.items()}
        run.events.append("step", step=step, epoch=step // 40, loss_avg=told["loss"], **told)
        if step % every == 0:
            checkpoint(run, step)
            if samples:
                for number, prompt in enumerate(PROMPTS):
                    picture(run, step, number, prompt)


def checkpoint(run: RunDir, step: int) -> Path:
    """A committed checkpoint with a LoRA file."""
    folder = run.checkpoints / f"step-{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{run.name}-step{step:08d}.safetensors").write_bytes(b"lora" * 1000)
    (folder / "training.json").write_text("{}")
    (folder / "COMMITTED").write_text(f"{step}\n")
    run.events.append("checkpoint", step=step, folder=folder.name, seconds=0.2)
    return folder


def picture(
    run: RunDir, step: int, number: int, prompt: str, seed: int = 42, size: int = 128, *, tell: bool = True
) -> Path:
    """A sample as the sampler writes it: prompt and seed in the PNG's text. The drawing gets sharper with the steps."""
    draw_from = random.Random(number)
    hue = (draw_from.randrange(255), draw_from.randrange(255), draw_from.randrange(255))
    image = Image.effect_noise((size, size), max(5, 120 - step)).convert("RGB")
    image = Image.blend(image, Image.new("RGB", (size, size), hue), 0.55)
    radius = size * 0.3
    box = [size / 2 - radius, size / 2 - radius, size / 2 + radius, size / 2 + radius]
    ImageDraw.Draw(image).ellipse(box, fill=tuple(255 - part for part in hue))
    text = PngInfo()
    for key, value in {"prompt": prompt, "seed": str(seed), "steps": "20", "guidance": "7", "step": str(step)}.items():
        text.add_itxt(key, value)
    run.samples.mkdir(exist_ok=True)
    path = run.samples / f"step-{step:08d}_p{number}.png"
    image.save(path, pnginfo=text)
    if tell:  # only the process that runs it writes a run's events
        run.events.append("sample", step=step, prompt=prompt, number=number, seed=seed, file=path.name)
    return path


def finished(workspace: Workspace, name: str, steps: int = 100, *, samples: bool = False, **more: Any) -> RunDir:
    """A run that went to its end."""
    run = new(workspace, name, steps, **more)
    run.begin_attempt("cpu")
    train(run, 1, steps, of=steps, samples=samples)
    run.state.write("train", steps, steps, force=True, loss=0.07)
    run.result.write_bytes(b"lora" * 5000)
    run.finish("done", f"{steps} steps", ExitCode.DONE)
    return run
