"""The job `grid`: an X/Y/Z grid of pictures, in the job's folder: grid.json, sheets, a contact sheet, the pictures.

It gives way to training and continues without painting twice: pictures live in the workspace's album by content.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainpilot.errors import PilotError

if TYPE_CHECKING:
    from trainpilot.evaluate.grids import Grid
    from trainpilot.models.detect import Base
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "grid"
LABEL = "Grid"
RESOURCE: Resource = "gpu"
MOST_PICTURES = 5000

AxisName = Literal["lora", "strength", "prompt", "seed", "sampler", "steps", "guidance"]


class Beside(BaseModel):
    """A LoRA that every cell has as well."""

    model_config = ConfigDict(extra="forbid")

    lora: str = Field(min_length=1, max_length=1000, description="LoRA file: a path, or a name in models/loras")
    strength: float = Field(1.0, ge=-4, le=4, description="How strongly it is applied")


class Params(BaseModel):
    """A grid: the values of each axis, and which axes go across and down."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field("", max_length=1000, description="Base model: a name in models/, or a path; empty: the run's")
    run: str = Field("", max_length=1000, description="A run whose checkpoints are the values of the axis lora")
    checkpoints: int = Field(0, ge=0, le=200, description="At most so many of its checkpoints; 0: all")
    loras: list[str] = Field(default_factory=list, max_length=200, description="LoRA files; empty text: the base alone")
    strengths: list[float] = Field([1.0], min_length=1, max_length=50, description="Strengths")
    prompts: list[str] = Field(min_length=1, max_length=100, description="Prompts")
    seeds: list[int] = Field([42], min_length=1, max_length=100, description="Seeds")
    samplers: list[str] = Field(["auto"], min_length=1, max_length=20, description="Samplers; auto: the family's")
    steps: list[int] = Field([20], min_length=1, max_length=20, description="Steps of the sampler")
    guidances: list[float] = Field(
        default_factory=list, max_length=20, description="Guidance scales; none: the family's"
    )
    beside: list[Beside] = Field(default_factory=list, max_length=10, description="LoRA files of every cell")
    negative: str = Field("", max_length=5000, description="What the pictures should not show")
    width: int | None = Field(None, ge=64, le=4096, multiple_of=8, description="px; none: the model's")
    height: int | None = Field(None, ge=64, le=4096, multiple_of=8, description="px; none: the model's")
    clip_skip: int = Field(1, ge=1, le=12, description="CLIP layer, counted from the last")
    x: AxisName = Field("strength", description="The axis that goes across")
    y: AxisName = Field("lora", description="The axis that goes down")
    title: str = Field("", max_length=200)

    @field_validator("seeds")
    @classmethod
    def _possible_seeds(cls, given: list[int]) -> list[int]:
        from trainpilot.config.schema import MAX_SEED

        if any(not 0 <= seed <= MAX_SEED for seed in given):
            raise ValueError(f"whole numbers from 0 to {MAX_SEED}")
        return list(dict.fromkeys(given))

    @field_validator("strengths")
    @classmethod
    def _possible_strengths(cls, given: list[float]) -> list[float]:
        if any(not -4 <= strength <= 4 for strength in given):
            raise ValueError("strengths from -4 to 4")
        return list(dict.fromkeys(given))

    @field_validator("steps")
    @classmethod
    def _possible_steps(cls, given: list[int]) -> list[int]:
        if any(not 1 <= count <= 200 for count in given):
            raise ValueError("steps from 1 to 200")
        return list(dict.fromkeys(given))

    @model_validator(mode="after")
    def _makes_sense(self) -> Params:
        if not self.base and not self.run:
            raise ValueError("a base model, or a run")
        if self.x == self.y:
            raise ValueError("different axes across and down")
        return self


def title(params: Params) -> str:
    return params.title or f"Grid: {params.y} by {params.x}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.engine.probe import choose_device
    from trainpilot.evaluate import grids
    from trainpilot.evaluate.album import Album
    from trainpilot.evaluate.easel import Easel
    from trainpilot.evaluate.painter import Painter
    from trainpilot.families.protocol import TextOptions

    base, grid = planned(job, params, progress)
    device = choose_device()
    for note in device.notes:
        progress.say(note)
    easel = Easel(base, device, None, TextOptions(clip_skip=params.clip_skip))
    painter = Painter(easel, Album(job.workspace, base, easel.settings, stop.check), stop.check)
    progress.say(
        f"{grid.count} cells on {base.path.name}: {grid.y} down, {grid.x} across, sheets by {grid.z or 'none'}"
    )
    begun = False

    def tell(done: int, of: int) -> None:
        nonlocal begun
        stop.check()
        if not begun:
            begun = True
            progress.say(f"{of} different pictures, {done} of them are there")
            progress.phase("pictures", of, done)
        progress.update(done)
        job.state.write("sample", done, of, eta=progress.eta)

    document = grids.paint(grid, painter, job.path, tell)
    return f"{document['pictures']} pictures on {len(document['sheets'])} sheets, {painter.painted} painted now"


def planned(job: JobDir, params: Params, progress: Progress) -> tuple[Base, Grid]:
    """The base and the grid of a job's parameters. PilotError names a file, sampler or run that is not there."""
    from trainpilot.config.prompts import Prompt
    from trainpilot.evaluate.candidates import of_run
    from trainpilot.evaluate.grids import Grid, Value
    from trainpilot.families.card import card
    from trainpilot.families.samplers import samplers_of
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import find_base
    from trainpilot.runs.rundir import RunDir

    judged = RunDir.find(job.workspace, params.run) if params.run else None
    base = detect(find_base(job.workspace, params.base or (judged.config.model.base if judged else "")))
    about = card(base.family).variant(base.variant)
    loras: list[Any] = [Value(_lora(job, name), Path(name).stem or "base") for name in params.loras]
    if judged is not None:
        found, notes = of_run(judged, params.checkpoints)
        loras += [Value(one.file, one.name) for one in found]
        for note in notes:
            progress.say(note)
    known = ["auto", *samplers_of(base.family)]
    for sampler in params.samplers:
        if sampler not in known:
            raise PilotError("samplers", sampler, ", ".join(known), "Choose one of these.")
    samplers = list(dict.fromkeys(about.sampler if one == "auto" else one for one in params.samplers))
    side = base.resolution or about.resolution
    grid = Grid(
        title=title(params),
        axes={
            "lora": loras or [Value(None, "base")],
            "strength": [Value(strength, f"{strength:g}") for strength in params.strengths],
            "prompt": [Value(text, text) for text in dict.fromkeys(params.prompts)],
            "seed": [Value(seed, str(seed)) for seed in params.seeds],
            "sampler": [Value(name, name) for name in samplers],
            "steps": [Value(count, str(count)) for count in params.steps],
            "guidance": [Value(scale, f"{scale:g}") for scale in params.guidances or [about.guidance]],
        },
        prompt=Prompt(
            negative=params.negative,
            width=params.width or side,
            height=params.height or side,
            embedded_guidance=about.embedded_guidance,
        ),
        beside=tuple((_file(job, one.lora), one.strength) for one in params.beside),
        x=params.x,
        y=params.y,
    )
    if grid.count > MOST_PICTURES:
        raise PilotError(
            "grid", f"{grid.count} cells", f"at most {MOST_PICTURES}", "Take fewer values, or several grids."
        )
    return base, grid


def _lora(job: JobDir, name: str) -> Path | None:
    return _file(job, name) if name else None


def _file(job: JobDir, name: str) -> Path:
    path = job.workspace.locate(name, job.workspace.loras)
    if not path.is_file():
        raise PilotError("loras", name, "an existing LoRA file", "It may be in the trash; choose another one.")
    return path.resolve()
