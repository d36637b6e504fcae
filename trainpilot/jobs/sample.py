"""The job `sample`: a matrix of pictures, prompts and seeds down, LoRAs at their strengths across; the Test page's.

It gives way to training: stopped between two steps of a picture, it keeps the finished ones, and goes on from there.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_json

if TYPE_CHECKING:
    from trainpilot.config.prompts import Prompt
    from trainpilot.models.detect import Base
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "sample"
LABEL = "Test"
RESOURCE: Resource = "gpu"
MOST_PICTURES = 400
_MAKING = "making"  # the PNG text entry that holds everything a picture depends on
MATRIX = "matrix.json"


class Column(BaseModel):
    """One column: a LoRA file at a strength; without a file, the base model alone."""

    model_config = ConfigDict(extra="forbid")

    lora: str = Field("", max_length=1000, description="LoRA file: a path, or a name in models/loras")
    strength: float = Field(1.0, ge=-4, le=4, description="How strongly it is applied; 1 as trained")
    label: str = Field("", max_length=100, description="What people call it")


class Params(BaseModel):
    """A test. Each prompt is made with each seed, in each column."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(min_length=1, max_length=1000, description="Base model: a name in models/, or a path")
    prompts: list[str] = Field(min_length=1, max_length=50, description="Prompts, with the options of a prompt line")
    negative: str = Field("", max_length=5000, description="What the pictures should not show")
    seeds: list[int] = Field([42], min_length=1, max_length=50, description="Each makes a row of every prompt")
    columns: list[Column] = Field(default_factory=lambda: [Column.model_validate({})], min_length=1, max_length=30)
    steps: int = Field(20, ge=1, le=200, description="Steps of the sampler")
    guidance: float | None = Field(None, ge=0, le=100, description="Guidance scale; none: the family's")
    sampler: str = Field("auto", max_length=50, description="Sampler; auto: the family's")
    width: int | None = Field(None, ge=64, le=4096, multiple_of=8, description="px; none: the model's")
    height: int | None = Field(None, ge=64, le=4096, multiple_of=8, description="px; none: the model's")
    clip_skip: int = Field(1, ge=1, le=12, description="CLIP layer, counted from the last")
    title: str = Field("", max_length=200)

    @field_validator("prompts")
    @classmethod
    def _some_text(cls, given: list[str]) -> list[str]:
        texts = [text.strip() for text in given if text.strip()]
        if not texts:
            raise ValueError("a prompt")
        if any(len(text) > 5000 for text in texts):
            raise ValueError("prompts of at most 5000 characters")
        return texts

    @field_validator("seeds")
    @classmethod
    def _possible_seeds(cls, given: list[int]) -> list[int]:
        from trainpilot.config.schema import MAX_SEED

        if any(not 0 <= seed <= MAX_SEED for seed in given):
            raise ValueError(f"whole numbers from 0 to {MAX_SEED}")
        return list(dict.fromkeys(given))

    @model_validator(mode="after")
    def _not_too_many(self) -> Params:
        count = len(self.prompts) * len(self.seeds) * len(self.columns)
        if count > MOST_PICTURES:
            raise ValueError(f"at most {MOST_PICTURES} pictures; these would be {count}")
        return self


def title(params: Params) -> str:
    return params.title or params.prompts[0].partition(" --")[0][:80]


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import find_base

    base = detect(find_base(job.workspace, params.base))
    prompts = rows(params, base)
    files = [_lora(job, column) for column in params.columns]
    _write_matrix(job, params, prompts)
    progress.say(f"{len(prompts)} rows, {len(files)} columns, on {base.path.name} ({base.family})")
    progress.phase("pictures", of=len(prompts) * len(files))
    done = 0
    for number, (column, lora) in enumerate(zip(params.columns, files, strict=True)):
        done = _column(job, params, base, prompts, (number, column, lora), progress, stop, done)
    job.state.write("sample", done, len(prompts) * len(files), force=True)
    return f"{done} pictures"


def rows(params: Params, base: Base) -> list[Prompt]:
    """A prompt for each row: every prompt line with every seed. PilotError names a wrong option."""
    from dataclasses import replace

    from trainpilot.config.prompts import Prompt, parse_prompt
    from trainpilot.families.card import card
    from trainpilot.families.samplers import samplers_of

    about = card(base.family).variant(base.variant)
    side = base.resolution or about.resolution
    defaults = Prompt(
        negative=params.negative,
        width=params.width or side,
        height=params.height or side,
        steps=params.steps,
        guidance=about.guidance if params.guidance is None else params.guidance,
        embedded_guidance=about.embedded_guidance,
        sampler=params.sampler,
    )
    found = []
    for line in params.prompts:
        prompt = parse_prompt(line, defaults, "prompts")
        known = ["auto", *samplers_of(base.family)]
        if prompt.sampler not in known:
            raise PilotError("sampler", prompt.sampler, ", ".join(known), "Choose one of these.")
        sampler = about.sampler if prompt.sampler == "auto" else prompt.sampler
        seeds = params.seeds if prompt.seed is None else [prompt.seed]  # a seed in the line is meant
        found += [replace(prompt, seed=seed, sampler=sampler) for seed in seeds]
    return found


def picture(column: int, row: int) -> str:
    """The file name of a picture."""
    return f"c{column:02d}_r{row:03d}.png"


def _column(
    job: JobDir,
    params: Params,
    base: Base,
    prompts: list[Prompt],
    place: tuple[int, Column, Path | None],
    progress: Progress,
    stop: StopFlag,
    done: int,
) -> int:
    """Make what is missing of a column; the number of pictures that are there then."""
    number, column, lora = place
    loras = ((lora, column.strength),) if lora is not None else ()
    made_of = {
        "base": str(base.path),
        "lora": _version(lora),
        "strength": column.strength,
        "clip_skip": params.clip_skip,
    }
    missing = []
    for row, prompt in enumerate(prompts):
        file = job.path / "pictures" / picture(number, row)
        making = json.dumps({**asdict(prompt), **made_of}, sort_keys=True)
        if _is_there(file, making):
            done += 1
        else:
            missing.append((row, prompt, file, making))
    of = len(params.columns) * len(prompts)
    if not missing:
        return done

    from trainpilot.engine.painting import Painting, named, paint
    from trainpilot.engine.probe import choose_device
    from trainpilot.engine.sampler import save_png

    device = choose_device()
    job.state.write("load", done, of, column=number, force=True)
    stop.check()

    def on_step(step: int, steps: int) -> None:
        job.state.write("sample", done, of, eta=progress.eta, column=number, sampler_step=step, sampler_steps=steps)
        stop.check()

    images = paint(
        Painting(base, loras, None, params.clip_skip), [prompt for _, prompt, _, _ in missing], device, on_step=on_step
    )
    for (row, prompt, file, making), image in zip(missing, images, strict=True):
        further = {"base": base.path.name, "lora": named(loras), _MAKING: making}
        save_png(image, file, prompt, prompt.sampler, **further)
        done += 1
        job.events.append("picture", column=number, row=row, file=file.name, seed=prompt.seed)
        progress.update(done)
        job.state.write("sample", done, of, eta=progress.eta, column=number)
    return done


def _is_there(file: Path, making: str) -> bool:
    """Whether a picture was made before, of exactly this. One that cannot be read is made again."""
    from PIL import Image

    try:
        with Image.open(file) as found:
            found.load()
            return bool(found.text.get(_MAKING) == making)  # type: ignore[attr-defined]
    except (OSError, SyntaxError, ValueError):
        return False


def _version(lora: Path | None) -> str:
    """A LoRA file as it is now: one that was trained on meanwhile makes other pictures."""
    if lora is None:
        return ""
    about = lora.stat()
    return f"{lora} {about.st_size} {about.st_mtime_ns}"


def _lora(job: JobDir, column: Column) -> Path | None:
    if not column.lora:
        return None
    path = job.workspace.locate(column.lora, job.workspace.loras)
    if not path.is_file():
        raise PilotError("columns", column.lora, "an existing LoRA file", "It may be in the trash; choose another one.")
    return path.resolve()


def _write_matrix(job: JobDir, params: Params, prompts: list[Prompt]) -> None:
    """What is where, for those who show it."""
    columns = [{"label": column_label(c), "lora": c.lora, "strength": c.strength} for c in params.columns]
    shown: list[dict[str, Any]] = [asdict(prompt) for prompt in prompts]
    write_json(job.path / MATRIX, {"schema": 1, "columns": columns, "rows": shown})


def column_label(column: Column) -> str:
    """How a column is named: what a person said, else the file and its strength."""
    if not column.lora:
        return column.label or "base model"
    return f"{column.label or Path(column.lora).stem} · {column.strength:g}"
