"""The job `merge`: LoRA files into one, or into their base model for good. For the panel; a base takes minutes.

The result goes into models/loras/ (one file) or models/ (a base), under a name of its own, and is never written over
another.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainpilot.errors import PilotError

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "merge"
LABEL = "Merge"
RESOURCE: Resource = "cpu"
_NAME = re.compile(r"[\w][\w. +-]{0,99}")


class Part(BaseModel):
    """One LoRA file with its strength."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    lora: str = Field(min_length=1, max_length=1000, description="A file in models/loras/ or outputs/, by path or name")
    strength: float = Field(1.0, ge=-10, le=10, description="How much of it")


class Params(BaseModel):
    """loras into one file, reduced to `rank` (0: joined exactly); or, with `base`, into that model."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    loras: list[Part] = Field(min_length=1, max_length=20, description="What is merged")
    base: str = Field("", max_length=1000, description="Base model to merge into; none: the files into one")
    name: str = Field(description="Name of the result, without an ending")
    rank: int = Field(0, ge=0, le=4096, description="Rank of the sum; 0 joins the ranks, which is exact")

    @model_validator(mode="after")
    def _fits(self) -> Params:
        if not _NAME.fullmatch(self.name) or ".." in self.name:
            raise ValueError("name: a plain name, of letters, digits, space and . _ + -")
        if not self.base and len(self.loras) < 2:
            raise ValueError("loras: two or more, or a base to merge into")
        if self.base and self.rank:
            raise ValueError("rank: only where files are merged into one")
        return self


def title(params: Params) -> str:
    names = " + ".join(Path(part.lora).stem for part in params.loras)
    return f"{names} into {params.base or params.name}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    found = [(_file(job, part.lora), part.strength) for part in params.loras]
    progress.phase("merge")
    job.state.write("merge", force=True)
    stop.check()
    done = _into_base(job, params, found, progress, stop) if params.base else _into_one(job, params, found)
    progress.say(done)
    return done.splitlines()[0]


def _file(job: JobDir, given: str) -> Path:
    path = job.workspace.locate(given, job.workspace.loras)
    if not path.is_file():
        raise PilotError("merge.loras", given, "an existing LoRA file", "It may be in the trash; choose another one.")
    return path.resolve()


def _into_one(job: JobDir, params: Params, found: list[tuple[Path, float]]) -> str:
    from trainpilot.formats.combine import combine
    from trainpilot.formats.lowrank import Limit

    target = job.workspace.loras / f"{params.name}.safetensors"
    done = combine(found, target, Limit(params.rank) if params.rank else None)
    job.events.append("merged", file=str(target), relative_error=done.relative)
    return f"{target}: {done.relative:.2e} of the Frobenius norm lost\n{done.text()}"


def _into_base(job: JobDir, params: Params, found: list[tuple[Path, float]], progress: Progress, stop: StopFlag) -> str:
    from trainpilot.formats.into_base import into_base
    from trainpilot.models.detect import detect
    from trainpilot.models.ondisk import find_base

    base = detect(find_base(job.workspace, params.base))
    target = job.workspace.models / (params.name + (".safetensors" if base.path.is_file() else ""))
    done = into_base(base, found, target, stop.check, progress.say)
    job.events.append("merged", file=str(target), modules=done.modules, rounding=done.rounding)
    return f"{target}: {sum(done.modules.values())} modules changed\n{done.text()}"
