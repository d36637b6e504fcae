"""The job `dataset-fix`: one fix of a dataset, the originals in the trash; what the panel's "fix" buttons start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainpilot.runs.atomic import write_json

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "dataset-fix"
LABEL = "Mending a dataset"
RESOURCE: Resource = "cpu"


class Params(BaseModel):
    """Which fix, and its own parameters."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    path: str = Field(min_length=1, max_length=3000, description="Dataset: a name, or a folder")
    kind: str = Field(min_length=1, max_length=100, description="Which fix")
    options: dict[str, Any] = Field({}, description="The fix's own parameters")

    @model_validator(mode="after")
    def _known(self) -> Params:
        from trainpilot.datasets.fixes import fixes

        if self.kind not in fixes():
            raise ValueError(", ".join(fixes()))
        fixes()[self.kind].Params.model_validate(self.options)
        return self


def title(params: Params) -> str:
    return f"{params.kind}: {Path(params.path).name}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets.fixes import find
    from trainpilot.datasets.mending import Subject, apply
    from trainpilot.datasets.table import locate

    def tell(done: int, of: int) -> None:
        stop.check()
        job.state.write("fix", done, of)

    root = locate(Dataset(path=params.path), job.workspace)
    dataset = Subject(root, job.workspace, tell)
    fix = find(params.kind)
    progress.phase("look")
    steps = list(fix.steps(dataset, fix.Params.model_validate(params.options)))
    progress.phase("fix", of=len(steps))
    done = apply(dataset, steps, f"dataset fix {params.kind}: {dataset.root.name}", tell)
    write_json(
        job.path / "fixed.json",
        {"schema": 1, "rewritten": done.rewritten, "taken": done.taken, "trash": list(done.entries)},
    )
    return f"{done.rewritten} files rewritten, {done.taken} taken away; the originals are in the trash"
