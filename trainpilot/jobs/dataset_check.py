"""The job `dataset-check`: the doctor's report on a dataset, as report.json and report.html in the job's folder.

`asked` and `examined` are what the verb `trainpilot dataset check` uses as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainpilot.runs.atomic import write_beside, write_json

if TYPE_CHECKING:
    from trainpilot.datasets.doctor.case import Encoder, Question
    from trainpilot.datasets.doctor.report import Report
    from trainpilot.datasets.doctor.survey import Tell
    from trainpilot.families.card import Card
    from trainpilot.models.detect import Base
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag
    from trainpilot.workspace import Workspace

KIND = "dataset-check"
LABEL = "Check of a dataset"
RESOURCE: Resource = "cpu"
REPORT, PAGE = "report.json", "report.html"


class Params(BaseModel):
    """What is checked, and for what."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    path: str = Field(min_length=1, max_length=3000, description="Dataset: a name, or a folder")
    type: Literal["", "face", "style", "object", "concept"] = Field("", description="What the LoRA is of")
    triggers: list[str] = Field([], max_length=10, description="Trigger words in their order; none: what is found")
    family: str = Field("", max_length=100, description="Model family; none: the base model's, or pictures of 1024 px")
    base: str = Field("", max_length=1000, description="Base model, whose tokenizers count; none: one of the family")

    @field_validator("triggers")
    @classmethod
    def _words(cls, given: list[str]) -> list[str]:
        return [word.strip() for word in given if word.strip()]


def title(params: Params) -> str:
    return f"check of {Path(params.path).name}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.datasets.doctor.page import page
    from trainpilot.datasets.doctor.report import summary

    show = shown_by(progress)

    def tell(phase: str, done: int, of: int) -> None:
        stop.check()
        show(phase, done, of)
        job.state.write(phase, done, of)

    report = examined(job.workspace, params, tell)
    job.state.write("report", force=True)
    write_json(job.path / REPORT, report.as_dict())
    write_beside(job.path / PAGE, page(report).encode())
    return summary(report)


def shown_by(progress: Progress) -> Tell:
    """What `survey.examine` tells, on a progress bar."""
    shown = ""

    def tell(phase: str, done: int, of: int) -> None:
        nonlocal shown
        if phase != shown:
            shown = phase
            progress.phase(phase, of=of)
        progress.update(done)

    return tell


def examined(workspace: Workspace, params: Params, tell: Tell | None = None) -> Report:
    """Check a dataset. tell: see `survey.examine`. PilotError where it is none, or the family or model is unknown."""
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets.doctor.report import judge
    from trainpilot.datasets.doctor.survey import examine
    from trainpilot.datasets.hashes import Memo
    from trainpilot.datasets.table import locate

    begun = time.monotonic()
    root = locate(Dataset(path=params.path), workspace)
    question = asked(workspace, params)
    with Memo.of(workspace.cache) as memo:
        case = examine(root, question, memo, tell)
    report = judge(case)
    report.seconds = time.monotonic() - begun
    return report


def asked(workspace: Workspace, params: Params) -> Question:
    """What the doctor is to judge by: the training size and tokenizers of the base model, or of the family."""
    from trainpilot.config.schema import Buckets
    from trainpilot.datasets.buckets import rules_from
    from trainpilot.datasets.doctor.case import Question
    from trainpilot.families.card import card

    base = _base(workspace, params)
    family = base.family if base else params.family
    if family:
        about = card(family).variant(base.variant if base else None)
        side = (base.resolution if base else None) or about.resolution
        step = (base.step if base else None) or about.step
        model = base.path.name if base and params.base else f"{about.label} at {side} px"
        encoders, missing = _encoders(about, base)
    else:
        side, step, model = 1024, 64, "models of 1024 px (name one with --family or --base-model)"
        encoders, missing = (), "no model was named"
    sides = {"min_side": min(256, side // 4), "max_side": side * 2}
    rules = rules_from(Buckets.model_validate({"resolution": side, "step": step, **sides}))
    return Question(rules, model, params.type, tuple(params.triggers), tuple(encoders), missing)


def _base(workspace: Workspace, params: Params) -> Base | None:
    """The base model that is named; else any folder of the family in models/, for its tokenizers."""
    from trainpilot.errors import PilotError
    from trainpilot.families.card import card
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import candidates, find_base

    if params.base:
        return detect(find_base(workspace, params.base))
    if not params.family:
        return None
    card(params.family)
    for path in candidates(workspace):
        try:
            found = detect(path)
        except PilotError:
            continue  # a model that cannot be recognised has its own place to be complained about
        if found.family == params.family and found.layout == "folder" and not found.tiny:
            return found
    return None


def _encoders(about: Card, base: Base | None) -> tuple[Sequence[Encoder], str]:
    from trainpilot.config.schema import TextEncoder
    from trainpilot.datasets.doctor.case import Encoder
    from trainpilot.plan.tokens import readers

    if base is None:
        return (), f"no model of {about.label} is in models/; name one with --base-model"
    found, notes = readers(TextEncoder(), about, base)
    return [Encoder(one.encoder, one.kind, one.limit, one.count) for one in found], "; ".join(notes)
