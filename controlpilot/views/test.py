"""Tests of LoRAs as pages and API show them: what can be chosen, starting one, and its pictures as a matrix.

A test is a job of kind `sample`: prompts and seeds down, LoRAs at their strengths across.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from controlpilot.measuring import measuring
from controlpilot.views import jobs, models
from controlpilot.views.jobs import JobRow
from controlpilot.views.refusals import NotFound
from trainpilot.errors import PilotError
from trainpilot.formats.identify import identify
from trainpilot.jobs import check
from trainpilot.jobs import find as find_kind
from trainpilot.models.detect import detect
from trainpilot.models.ondisk import candidates
from trainpilot.runs.atomic import read_json
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.workspace import Workspace

KIND = "sample"
PICTURE = re.compile(r"c\d{2,3}_r\d{3,4}\.png")
MOST_CHOICES = 200  # LoRA files offered at once, the newest


class LoraChoice(BaseModel):
    """file: what a test takes, below the workspace."""

    file: str
    label: str
    group: str = Field(description="loras, or the run whose checkpoint it is")


class Choices(BaseModel):
    bases: list[str]
    loras: list[LoraChoice]


class TestRequest(BaseModel):
    """Each prompt is made with each seed, for each LoRA at each strength."""

    __test__ = False  # nothing for pytest
    model_config = {"extra": "forbid"}

    base: str = Field(min_length=1, max_length=500, description="Base model: a name in models/")
    prompts: list[str] = Field(min_length=1, max_length=50)
    negative: str = Field(default="", max_length=5000)
    seeds: list[int] = Field(default=[42], min_length=1, max_length=50)
    steps: int = Field(default=20, ge=1, le=200)
    guidance: float | None = Field(default=None, ge=0, le=100)
    width: int | None = Field(default=None, ge=64, le=4096, multiple_of=8)
    height: int | None = Field(default=None, ge=64, le=4096, multiple_of=8)
    loras: list[str] = Field(default=[], max_length=20, description="LoRA files, below the workspace")
    strengths: list[float] = Field(default=[1.0], min_length=1, max_length=20)
    with_base: bool = Field(default=True, description="A first column without any LoRA")
    title: str = Field(default="", max_length=200)


class Picture(BaseModel):
    file: str
    changed: int = Field(description="Nanoseconds; part of the picture's address, so that browsers may keep it")


class MatrixColumn(BaseModel):
    label: str
    lora: str
    strength: float


class MatrixRow(BaseModel):
    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    pictures: list[Picture | None] = Field(description="One for each column; null while it is missing")


class TestResult(BaseModel):
    __test__ = False

    job: JobRow
    params: dict[str, Any]
    columns: list[MatrixColumn]
    rows: list[MatrixRow]
    done: int
    of: int


def choices(workspace: Workspace) -> Choices:
    """Base models that can be used, and LoRA files: finished ones, then the checkpoints of runs, newest run first."""
    files = [LoraChoice(file=f"models/loras/{row.name}", label=row.name.removesuffix(".safetensors"), group="loras")
             for row in models.loras(workspace).loras if row.problem is None]  # fmt: skip
    runs = list(workspace.outputs.iterdir()) if workspace.outputs.is_dir() else []
    for run in sorted((path for path in runs if path.is_dir()), key=lambda path: -path.stat().st_mtime):
        for file in sorted((run / "checkpoints").glob("step-*/*-step*.safetensors"), reverse=True):
            if len(files) >= MOST_CHOICES:
                break
            step = file.parent.name.removeprefix("step-").lstrip("0") or "0"
            label = f"{run.name}, step {step}"
            files.append(LoraChoice(file=str(file.relative_to(workspace.root)), label=label, group=run.name))
    return Choices(bases=[row.name for row in models.bases(workspace) if row.problem is None], loras=files)


def start(workspace: Workspace, asked: TestRequest) -> JobRow:
    """Put a test into the queue. PilotError names what cannot be: a base, a file, or a LoRA of another family."""
    names = {str(path.relative_to(workspace.models)): path for path in candidates(workspace)}
    if asked.base not in names:
        listed = ", ".join(names) or "none is here yet"
        raise PilotError("base", asked.base, listed, "Choose one of these, or download one on the Models page.")
    base = detect(names[asked.base])
    columns: list[dict[str, Any]] = [{}] if asked.with_base or not asked.loras else []
    for file in asked.loras:
        found = identify(_lora_file(workspace, file))
        if found.family != base.family:
            given = f"{found.path.name} is for {models.family_label(found.family)}"
            remedy = "Choose a base of its family."
            raise PilotError("loras", given, models.family_label(base.family), remedy)
        columns += [{"lora": file, "strength": strength} for strength in dict.fromkeys(asked.strengths)]
    shared = asked.model_dump(exclude={"loras", "strengths", "with_base"}, exclude_none=True)
    params = shared | {"columns": columns}
    check(find_kind(KIND), params)
    return jobs.one(workspace, JobDir.create(workspace, KIND, params).name)


def _lora_file(workspace: Workspace, given: str) -> Path:
    """A LoRA file named below the workspace; NotFound for anything that leads elsewhere."""
    path = workspace.root / given
    inside = workspace.root.resolve()
    fine = path.suffix == ".safetensors" and models.is_file(path) and path.resolve().is_relative_to(inside)
    if not fine or ".." in Path(given).parts:
        raise NotFound("LoRA", repr(given[:200]), "a .safetensors file of the workspace", "Choose one of the list.")
    return path


def result(workspace: Workspace, ident: str) -> TestResult:
    """A test with its pictures as far as they are made. NotFound where there is no such test."""
    row = jobs.one(workspace, ident)
    if row.kind != KIND:
        raise NotFound("test", ident, "a job of kind sample", "See the list of tests.")
    folder = workspace.jobs / ident
    params = read_job(folder).get("params", {})
    matrix = read_json(folder / "matrix.json") or {}
    columns = [MatrixColumn(**column) for column in matrix.get("columns", [])]
    rows = []
    for number, prompt in enumerate(matrix.get("rows", [])):
        pictures = [
            _picture(folder / "pictures" / f"c{column:02d}_r{number:03d}.png") for column in range(len(columns))
        ]
        kept = {name: prompt[name] for name in MatrixRow.model_fields if name in prompt}
        rows.append(MatrixRow(prompt=prompt["text"], pictures=pictures, **kept))
    done = sum(picture is not None for one in rows for picture in one.pictures)
    expected = len(params.get("columns", [])) * len(params.get("prompts", [])) * len(params.get("seeds", []))
    of = len(rows) * len(columns) or expected
    return TestResult(job=row, params=params, columns=columns, rows=rows, done=done, of=of)


def _picture(path: Path) -> Picture | None:
    try:
        return Picture(file=path.name, changed=path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def small_picture(workspace: Workspace, ident: str, file: str) -> Path | None:
    """The thumbnail of a picture; None while it is not made, which then is asked for. NotFound as below."""
    path = picture_file(workspace, ident, file)
    service = measuring(workspace)
    facts = service.facts([path]).get(path)
    if facts is None:
        service.want([path], urgent=True)
    return service.thumbnail(facts.sha256) if facts is not None else None


def picture_file(workspace: Workspace, ident: str, file: str) -> Path:
    """The PNG of a test's picture. NotFound where there is none."""
    path = jobs.folder_of(workspace, ident) / "pictures" / file
    if not PICTURE.fullmatch(file) or not path.is_file() or path.is_symlink():
        raise NotFound("picture", repr(file[:100]), "a picture of the test", "It may not be made yet.")
    return path
