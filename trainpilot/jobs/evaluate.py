"""The job `evaluate`: judges a run's checkpoints by the protocol and writes the report into the run's folder.

It gives way to training as every GPU job does: stopped between two steps of a batch, it keeps the painted pictures,
and goes on from there. `after` queues one when a run has ended, where the run asks for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.rundir import RunDir
    from trainpilot.runs.stop import StopFlag

KIND = "evaluate"
LABEL = "Evaluation"
RESOURCE: Resource = "gpu"


class Params(BaseModel):
    """Which run, and what differs from the protocol."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(min_length=1, max_length=1000, description="The run: its name, or its folder")
    protocol: str = Field("", max_length=1000, description="Protocol by name or file; empty: the one for the base")
    trigger: str | None = Field(None, max_length=200, description="Trigger word; none: found in the captions")
    class_word: str | None = Field(None, max_length=100, description="What the subject is: woman, dog, car")
    checkpoints: int | None = Field(None, ge=1, le=200, description="At most so many checkpoints")
    seeds: int | None = Field(None, ge=2, le=64, description="Seeds of each prompt; more make narrower intervals")
    strengths: list[float] | None = Field(None, min_length=1, max_length=20, description="Strengths to try")
    swept: int | None = Field(None, ge=0, description="So many leading checkpoints at every strength; 0: all")
    against: list[str] = Field(default_factory=list, max_length=10, description="LoRA files to compare with")
    held_out: str = Field("", max_length=1000, description="Folder of pictures the run was not trained on")


def title(params: Params) -> str:
    return f"Evaluation of {Path(params.run).name}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.errors import PilotError
    from trainpilot.evaluate import record
    from trainpilot.evaluate.evaluation import Voice, Wanted, evaluate
    from trainpilot.runs.rundir import RunDir

    judged = RunDir.find(job.workspace, params.run)
    against = tuple(job.workspace.locate(name, job.workspace.loras).resolve() for name in params.against)
    for path in against:
        if not path.is_file():
            raise PilotError("against", path, "an existing LoRA file", "It may be in the trash; choose another one.")
    phase = "start"

    def enter(name: str, of: int) -> None:
        nonlocal phase
        phase = name
        stop.check()
        progress.phase(name, of)
        job.state.write(name, 0, of, force=True)

    def count(done: int, of: int) -> None:
        stop.check()
        progress.update(done)
        job.state.write(phase, done, of, eta=progress.eta)

    def say(text: str) -> None:
        progress.say(text)
        job.events.append("notice", text=text)

    wanted = Wanted(
        protocol=params.protocol or None,
        trigger=params.trigger,
        class_word=params.class_word,
        checkpoints=params.checkpoints,
        seeds=params.seeds,
        strengths=tuple(params.strengths) if params.strengths else None,
        swept=params.swept,
        against=against,
        held_out=job.workspace.locate(params.held_out, job.workspace.datasets) if params.held_out else None,
    )
    found = evaluate(judged, wanted, Voice(say, enter, count, stop.check))
    page = record.write(found)
    assert found.choice is not None
    job.events.append("evaluate", run=judged.name, file=str(page), reason=found.choice.reason)
    progress.say(f"report: {page}")
    return found.choice.reason


def after(run: RunDir) -> str:
    """Queue the evaluation of a run that has ended, or say why not, in one sentence.

    The worker takes it when no training waits. A run that a shell started has no worker to count on, and one
    checkpoint leaves nothing to choose: there a person decides.
    """
    from trainpilot.runs.jobdir import JobDir
    from trainpilot.runs.taskdir import STARTED_BY

    command = f"trainpilot evaluate {run.name}"
    if os.environ.get(STARTED_BY, "shell") != "worker":
        return f"to judge its checkpoints: {command}"
    saved = len(list(run.checkpoints.glob("step-*/COMMITTED")))
    if saved < 2:
        return f"the run kept one checkpoint, so there is nothing to choose; its strengths: {command}"
    job = JobDir.create(run.workspace, KIND, _of(run))
    return f"its {saved} checkpoints will be judged when no training waits: job {job.name}"


def _of(run: RunDir) -> dict[str, Any]:
    return {"run": run.name}
