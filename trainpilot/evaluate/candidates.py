"""Which LoRA files of a run are judged: its checkpoints, evenly over its steps, and what it ended with.

Without torch. Used by evaluations and by `trainpilot grid --run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.runs.rundir import RunDir


@dataclass(frozen=True)
class Candidate:
    """A LoRA file to judge. name: as people know it; step: updates it had, None for another run's file."""

    name: str
    file: Path
    step: int | None = None


def of_run(run: RunDir, most: int = 0) -> tuple[list[Candidate], list[str]]:
    """(candidates by step, notes). most: so many at most, evenly chosen with the first and the last; 0: all.

    The result has the weights of the last checkpoint where both are of the same step, and then stands for it.
    PilotError where the run has no LoRA file yet.
    """
    found = []
    for marker in sorted(run.checkpoints.glob("step-*/COMMITTED")):
        files = [path for path in sorted(marker.parent.glob("*.safetensors")) if path.name != "state.safetensors"]
        if files:
            step = int(marker.parent.name.removeprefix("step-"))
            found.append(Candidate(f"step {step}", files[0], step))
    if run.result.is_file():
        steps = _steps_of(run.result)
        found = [one for one in found if one.step != steps]
        found.append(Candidate(f"step {steps}" if steps else run.result.stem, run.result, steps))
    if not found:
        given = "no checkpoint and no result"
        raise PilotError(f"run {run.name}", given, "a run that has saved", "Train it, or set saving.every_steps.")
    chosen = _evenly(found, most) if most else found
    notes = []
    if len(chosen) < len(found):
        notes.append(
            f"{len(chosen)} of {len(found)} checkpoints are judged, evenly over the run; --checkpoints says how many"
        )
    if len(chosen) == 1:
        notes.append("the run kept one checkpoint; with saving.every_steps and saving.keep=0 there is a choice")
    return chosen, notes


def _steps_of(file: Path) -> int | None:
    """Updates that a result had, from its own header."""
    from trainpilot.models.safetensors_header import read_header

    said = read_header(file).metadata.get("ss_steps", "")
    return int(said) if said.isdigit() else None


def _evenly(found: list[Candidate], most: int) -> list[Candidate]:
    """`most` of them at equal distances, the last one always."""
    if len(found) <= most:
        return found
    if most == 1:
        return found[-1:]
    return [found[round(place * (len(found) - 1) / (most - 1))] for place in range(most)]
