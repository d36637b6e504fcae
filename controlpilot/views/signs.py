"""Good and warning signs of a training run, in plain language, each with what to do. One pure function a sign.

They are the guides' signs: a falling loss, no errors, regular checkpoints, samples that improve; and a rising or
undefined loss, memory that does not suffice, a slow run, artefacts. Each function gets `Facts` and says a `Sign` or
None; `signs` asks all. Used by a run's page, the dashboard and the API.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, Field

Level = Literal["good", "note", "warning", "bad"]

_ENOUGH = 40  # losses before a trend is told from chance
_PART = 0.2  # share of the run that is compared with another
_SURE = 3.0  # standard errors beyond which a change is no chance
_SLOW = 0.5  # of the speed before, or of the planned one
_SILENT = 60.0  # seconds without a step, at least, before a run is called silent
_SPIKE = 10.0  # times the usual gradient norm
_BLANK = 0.03  # bytes a pixel of a PNG that shows next to nothing
_NOISE = 2.8  # of three: what does not compress at all
_OUT_OF_MEMORY = ("out of memory", "outofmemoryerror")
_DEVICE = ("cuda error", "cublas", "cudnn", "device-side assert", "nccl")


class Sign(BaseModel):
    """One notice. level: good, note, warning or bad."""

    key: str
    level: Level
    text: str
    remedy: str = Field("", description="What to do, if anything")


@dataclass(frozen=True)
class Facts:
    """What the signs look at. Sequences over told steps have the same length; numbers not told are NaN.

    notes: texts of notices and warnings of the present attempt; picture_bytes: bytes a pixel of the samples, by step.
    """

    status: str = "running"
    phase: str = "train"
    reason: str = ""
    of: int = 0
    steps: Sequence[int] = ()
    losses: Sequence[float] = ()
    speeds: Sequence[float] = ()  # steps a second
    norms: Sequence[float] = ()
    nan_steps: Sequence[int] = ()
    checkpoints: Sequence[int] = ()
    checkpoint_every: int = 0
    samples: Sequence[int] = ()
    sample_every: int = 0
    notes: Sequence[str] = ()
    picture_bytes: Sequence[tuple[int, float]] = field(default_factory=tuple)
    planned_seconds_per_step: float | None = None
    heartbeat_age: float | None = None
    since_step: float | None = None  # seconds

    @property
    def step(self) -> int:
        return self.steps[-1] if self.steps else 0


def not_a_number(facts: Facts) -> Sign | None:
    """The loss became NaN or infinite; TrainPilot goes back once, with a lower rate."""
    told = [note for note in (*facts.notes, facts.reason) if "loss nan" in note.lower() or "not finite" in note.lower()]
    rolled = [note for note in facts.notes if "rolled back" in note]
    if not (facts.nan_steps or told or rolled):
        return None
    where = f" at step {facts.nan_steps[-1]}" if facts.nan_steps else ""
    if facts.status == "failed":
        text = f"The loss stopped being a number{where}, and again after going back to the last good checkpoint."
        remedy = "Resume with a lower learning rate (a tenth), or with precision.mixed = bf16. Checkpoints are good."
        return Sign(key="nan", level="bad", text=text, remedy=remedy)
    text = f"The loss stopped being a number{where}. "
    text += "The run went back to its last good state, with a tenth of the rate." if rolled else "Watch the samples."
    remedy = "If it happens again the run fails: lower the learning rate, or use precision.mixed = bf16."
    return Sign(key="nan", level="warning", text=text, remedy=remedy)


def rising_loss(facts: Facts) -> Sign | None:
    """The newest fifth lies clearly above the best fifth before it."""
    losses = _finite(facts.losses)
    if len(losses) < _ENOUGH:
        return None
    size = max(8, int(len(losses) * _PART))
    late = losses[-size:]
    earlier = [losses[start : start + size] for start in range(0, len(losses) - 2 * size + 1, max(1, size // 2))]
    best = min(earlier, key=statistics.fmean, default=None)
    if best is None or not _above(late, best) or statistics.fmean(late) < 1.15 * statistics.fmean(best):
        return None
    text = f"The loss is rising: {statistics.fmean(late):.3g} on average lately, after {statistics.fmean(best):.3g}."
    remedy = "Look at the newest samples. If they are worse, stop, and resume with a lower learning rate."
    return Sign(key="rising", level="warning", text=text, remedy=remedy)


def falling_loss(facts: Facts) -> Sign | None:
    """The newest fifth lies clearly below the first."""
    losses = _finite(facts.losses)
    if len(losses) < _ENOUGH:
        return None
    size = max(8, int(len(losses) * _PART))
    early, late = losses[:size], losses[-size:]
    if not _above(early, late):
        return None
    text = f"The loss is falling: from {statistics.fmean(early):.3g} to {statistics.fmean(late):.3g} on average."
    return Sign(key="falling", level="good", text=text, remedy="")


def out_of_memory(facts: Facts) -> Sign | None:
    """The device's memory did not suffice; TrainPilot tries with less before it gives up."""
    found = any(word in note.lower() for note in (*facts.notes, facts.reason) for word in _OUT_OF_MEMORY)
    if not found:
        return None
    if facts.status in ("failed", "interrupted"):
        text = "The run ended because the device's memory did not suffice."
        remedy = "Resume with batch size 1, a lower resolution or rank, or gradient checkpointing; stop other programs."
        return Sign(key="memory", level="bad", text=text, remedy=remedy)
    text = "The device's memory did not suffice; the run goes on with the same numbers, more slowly."
    remedy = "To be faster next time: a smaller batch, a lower resolution, or stop what else uses the GPU."
    return Sign(key="memory", level="warning", text=text, remedy=remedy)


def device_errors(facts: Facts) -> Sign | None:
    """Errors of CUDA other than memory; or the good news that there were none."""
    texts = [note.lower() for note in (*facts.notes, facts.reason)]
    if any(word in note for note in texts for word in _DEVICE):
        remedy = (
            "See the log. Resume the run; if it comes back, restart the pod: the GPU or its driver may be at fault."
        )
        return Sign(key="device", level="bad", text="The GPU reported an error.", remedy=remedy)
    trouble = any(word in note for note in texts for word in _OUT_OF_MEMORY)
    if facts.status == "running" and facts.step >= 10 and not trouble:
        return Sign(key="device", level="good", text="No errors so far.", remedy="")
    return None


def checkpoints(facts: Facts) -> Sign | None:
    """Whether checkpoints come as planned."""
    if not facts.checkpoint_every or facts.status not in ("running", "done"):
        return None
    newest = max(facts.checkpoints, default=0)
    late = facts.step - newest
    if late > 1.5 * facts.checkpoint_every + 5:
        text = f"No checkpoint for {late} steps; one is planned every {facts.checkpoint_every}."
        remedy = "Press Save now, and look into the log: the disk may be full."
        return Sign(key="checkpoints", level="warning", text=text, remedy=remedy)
    if not facts.checkpoints:
        return None
    text = f"Checkpoints come regularly, the last one at step {newest}."
    return Sign(key="checkpoints", level="good", text=text, remedy="")


def samples(facts: Facts) -> Sign | None:
    """Samples arrive; whether they improve is for a person to see."""
    if not facts.samples or facts.status not in ("running", "done"):
        return None
    first, newest = min(facts.samples), max(facts.samples)
    if first == newest:
        text = f"The first samples are there, of step {newest}."
        return Sign(key="samples", level="good", text=text, remedy="Compare them with the next ones.")
    text = f"Samples of {len(facts.samples)} steps are there."
    remedy = f"Compare step {newest} with step {first}: the subject should become clearer."
    return Sign(key="samples", level="good", text=text, remedy=remedy)


def slow(facts: Facts) -> Sign | None:
    """Far below its own speed before, or below the plan's."""
    speeds = _finite(facts.speeds)
    if facts.status != "running" or len(speeds) < 20:
        return None
    latest = statistics.median(speeds[-max(5, len(speeds) // 20) :])
    usual = statistics.median(speeds)
    if latest < _SLOW * usual:
        text = f"Training slowed down: {_pace(latest)} now, {_pace(usual)} before."
        remedy = "See the dashboard: another program may use the GPU, or it is hot. ComfyUI and others can be stopped."
        return Sign(key="slow", level="warning", text=text, remedy=remedy)
    planned = facts.planned_seconds_per_step
    if planned and usual < _SLOW / planned:
        text = f"Slower than planned: {_pace(usual)}, planned {_pace(1 / planned)}."
        remedy = "A lower resolution, no gradient checkpointing where memory allows, or a faster GPU help."
        return Sign(key="slow", level="warning", text=text, remedy=remedy)
    return None


def silent(facts: Facts) -> Sign | None:
    """A live run that gives no sign of life."""
    if facts.status != "running":
        return None
    if facts.heartbeat_age is not None and facts.heartbeat_age > _SILENT:
        text = f"No sign of life for {facts.heartbeat_age:.0f} s while {_doing(facts.phase)}."
        remedy = "The worker restarts a run that hangs from its last checkpoint. The log says what it did last."
        return Sign(key="silent", level="warning", text=text, remedy=remedy)
    return None


def gradients(facts: Facts) -> Sign | None:
    """Repeated spikes of the gradient norm announce a run that falls apart."""
    norms = _finite(facts.norms)
    if facts.status != "running" or len(norms) < _ENOUGH:
        return None
    usual = statistics.median(norms)
    late = norms[-max(10, len(norms) // 10) :]
    spikes = [norm for norm in late if norm > _SPIKE * usual]
    if usual <= 0 or len(spikes) < 3:
        return None
    text = f"Gradients jump: up to {max(spikes):.3g}, usually {usual:.3g}. Training is unstable."
    remedy = "A lower learning rate or a longer warm-up calms it. One broken picture or caption can be the cause, too."
    return Sign(key="gradients", level="warning", text=text, remedy=remedy)


def artefacts(facts: Facts) -> Sign | None:
    """Samples that are blank or pure noise, as their files' size tells."""
    if not facts.picture_bytes:
        return None
    newest = max(step for step, _ in facts.picture_bytes)
    late = [size for step, size in facts.picture_bytes if step == newest]
    remedy = "Use an earlier checkpoint. Lower the learning rate or the noise offset, and look for broken pictures."
    if late and all(size < _BLANK for size in late):
        return Sign(key="artefacts", level="bad", text=f"The samples of step {newest} are blank.", remedy=remedy)
    first = [size for step, size in facts.picture_bytes if step < newest]
    if late and min(late) > _NOISE and first and statistics.fmean(first) < _NOISE:
        text = f"The samples of step {newest} look like noise."
        return Sign(key="artefacts", level="bad", text=text, remedy=remedy)
    return None


def ended(facts: Facts) -> Sign | None:
    """A run that ended by itself or lost its process, and how to go on."""
    if facts.status == "interrupted":
        text = "The run's process is gone: it was killed, or the machine restarted."
        remedy = "The worker resumes it from the last checkpoint by itself. If none works here: press Resume."
        return Sign(key="ended", level="bad", text=text, remedy=remedy)
    if facts.status == "failed":
        text = f"The run failed: {facts.reason or 'the log says why'}."
        return Sign(
            key="ended", level="bad", text=text.replace("..", "."), remedy="Mend what it names, then resume it."
        )
    return None


ALL: tuple[Callable[[Facts], Sign | None], ...] = (
    ended, not_a_number, out_of_memory, device_errors, silent, rising_loss, gradients, artefacts, slow, falling_loss,
    checkpoints, samples,
)  # fmt: skip
_ORDER: dict[Level, int] = {"bad": 0, "warning": 1, "note": 2, "good": 3}


def signs(facts: Facts) -> list[Sign]:
    """All signs there are, the worst first. A rising loss hides that it fell before."""
    found = [sign for one in ALL if (sign := one(facts)) is not None]
    keys = {sign.key for sign in found}
    if "rising" in keys:
        found = [sign for sign in found if sign.key != "falling"]
    return sorted(found, key=lambda sign: _ORDER[sign.level])


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _above(high: Sequence[float], low: Sequence[float]) -> bool:
    """Whether one sample's mean lies above the other's by more than chance (Welch's t of at least `_SURE`)."""
    error = math.sqrt(statistics.variance(high) / len(high) + statistics.variance(low) / len(low))
    return statistics.fmean(high) - statistics.fmean(low) > _SURE * error + 1e-12


def _pace(speed: float) -> str:
    return f"{speed:.2f} steps/s" if speed >= 1 else f"{1 / max(speed, 1e-9):.2f} s a step"


def _doing(phase: str) -> str:
    return {"train": "training", "load": "loading the model"}.get(phase, f"in phase “{phase}”" if phase else "starting")
