"""A run's numbers as lines to draw: at most some hundred buckets, and later only those that are new.

A bucket holds the same power of two of told steps wherever it stands, so that buckets stay where they are while a run
goes on; only when there are too many, two become one and everything is sent anew. Used by the charts of a run.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from controlpilot.views.course import Course
from trainpilot.errors import PilotError

BUCKETS = 800  # most that are drawn: more than a screen has columns for
_AFTER = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")
_BANDED = ("loss", "grad_norm")  # drawn with their lowest and highest
_PLAIN = ("loss_avg", "lr", "it_s", "images_s", "vram_gb")


class Series(BaseModel):
    """Lines of a run: lists of the same length, one value a bucket. `first` is the place of the first one given.

    loss and grad_norm are means, beside them *_low and *_high of the bucket; others are the means. Values that the
    run did not tell are null.
    """

    run: str
    points: int = Field(description="Steps told so far, after those that a later attempt made again were dropped")
    each: int = Field(description="Told steps in a bucket")
    first: int = Field(description="Where the given buckets begin; the caller drops its own from here on")
    complete: bool = Field(description="Whether all events were read; if not, ask again soon")
    of: int = Field(description="Steps of the whole run; 0 while unknown")
    steps: list[int] = Field(description="Last step of each bucket")
    lines: dict[str, list[float | None]]
    after: str = Field(description="Opaque; given with the next call, only what is new comes back")


def series(
    run: str,
    course: Course,
    after: str | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    buckets: int = BUCKETS,
) -> Series:
    """The lines of a run, or of its steps from..to (both included). PilotError for an `after` that is none."""
    points, rewinds = course.points, course.rewinds
    steps = course.steps[:points]
    begin, stop = 0, points
    if from_step is not None:
        begin = int(np.searchsorted(steps, from_step))
    if to_step is not None:
        stop = int(np.searchsorted(steps, to_step, side="right"))
    stop = max(begin, stop)
    each = 1
    while -(-(stop - begin) // each) > buckets:
        each *= 2
    first = 0
    if after is not None:
        match = _AFTER.fullmatch(after)
        if match is None:
            raise PilotError("after", repr(after[:40]), "`after` of an earlier answer", "Leave it out to get all.")
        known_each, known_rewinds, known = (int(part) for part in match.groups())
        if (known_each, known_rewinds) == (each, rewinds):
            first = min(known, (stop - begin) // each)
    start = begin + first * each
    lines: dict[str, list[float | None]] = {}
    for name in _BANDED:
        low, mean, high = _bands(course.values[name][start:stop], each)
        lines |= {name: mean, f"{name}_low": low, f"{name}_high": high} if each > 1 else {name: mean}
    for name in _PLAIN:
        lines[name] = _bands(course.values[name][start:stop], each)[1]
    ends = [min(place + each, stop) - 1 for place in range(start, stop, each)]
    return Series(
        run=run,
        points=points,
        each=each,
        first=first,
        complete=course.complete,
        of=course.of,
        steps=steps[ends].tolist() if ends else [],
        lines={name: values for name, values in lines.items() if any(value is not None for value in values)},
        after=f"{each}.{rewinds}.{(stop - begin) // each}",
    )


def _bands(values: np.ndarray, each: int) -> tuple[list[float | None], list[float | None], list[float | None]]:
    """Lowest, mean and highest of every bucket; the last one may be shorter. NaN is left out, and alone is null."""
    if each == 1:
        plain = _json(values)
        return plain, plain, plain
    whole = len(values) // each * each
    tables = [values[:whole].reshape(-1, each)]
    if whole < len(values):
        tables.append(values[whole:].reshape(1, -1))
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bucket of nothing but NaN is what null says
        for table in tables:
            if len(table):
                for into, reduced in zip(
                    found, (np.nanmin(table, 1), np.nanmean(table, 1), np.nanmax(table, 1)), strict=True
                ):
                    into.extend(_json(reduced))
    return found


def _json(values: np.ndarray) -> list[float | None]:
    """Six digits, as the run told them; what is no number is null."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
