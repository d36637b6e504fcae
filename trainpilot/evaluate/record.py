"""What an evaluation leaves in the run's folder: report/evaluation.json, its pictures, and the page.

The JSON is for programs (the panel's Test page, scripts): every number with its interval, every picture by its place in
the run's folder. Written whole, pictures first, so that a reader never finds a name without its file.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainpilot import __version__
from trainpilot.evaluate import choosing, diagnosis
from trainpilot.evaluate.album import put
from trainpilot.evaluate.choosing import Cell
from trainpilot.evaluate.evaluation import Evaluated
from trainpilot.evaluate.interval import Estimate
from trainpilot.evaluate.metrics import Finding, metrics
from trainpilot.runs.atomic import write_beside, write_json

JSON, PAGE, PICTURES = "evaluation.json", "evaluation.html", "evaluation"
SCHEMA = 1
MOST_FINDINGS = 6  # of a checkpoint
INTERVAL = (
    "two-sided 95%: Student's t over seeds within prompts (over prompts for diversity); scores: a bootstrap over seeds"
)


def write(found: Evaluated) -> Path:
    """Write everything, and return the page. An earlier evaluation's files are replaced."""
    from trainpilot.evaluate import page

    folder = found.run.report
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    placed = _place(found)
    document = as_document(found, placed)
    write_json(folder / JSON, document)
    write_beside(folder / PAGE, page.page(found, document).encode("utf-8", "xmlcharrefreplace"))
    return folder / PAGE


def as_document(found: Evaluated, pictures: Mapping[tuple[str, int, int], str]) -> dict[str, Any]:
    """The JSON. pictures: of a cell's name, prompt and seed, as paths in the run's folder."""
    choice = found.choice
    assert choice is not None
    best = choice.best.cell
    strength, also = choosing.best_strength(choice)
    files = {one.name: str(one.file) for one in found.checkpoints}
    rows = []
    for scored in sorted(choice.scored, key=lambda one: (one.cell.step or 0, one.cell.strength)):
        rows.append(
            _cell(scored.cell, files.get(scored.cell.checkpoint), pictures)
            | {
                "score": _estimate(scored.score),
                "best_share": scored.best_share,
                "tied": scored.tied,
                "pareto": scored.cell in choice.pareto,
            }
        )
    names = list(metrics())
    return {
        "schema": SCHEMA,
        "run": found.run.name,
        "made_at": time.time(),
        "trainpilot": __version__,
        "seconds": round(found.seconds, 1),
        "painted": found.painted,
        "base": found.base.path.name,
        "family": found.base.family,
        "device": found.device.name,
        "protocol": {
            "name": found.protocol.name,
            "title": found.protocol.title,
            "seeds": list(found.protocol.seeds),
            "strengths": sorted({cell.strength for cell in found.cells}),
            "reference": found.protocol.reference,
            "prompts": [asdict(asked) for asked in found.asked],
        },
        "subject": asdict(found.subject),
        "interval": INTERVAL,
        "metrics": [metric.ABOUT.as_dict() for name, metric in metrics().items() if name not in found.left_out],
        "left_out": found.left_out,
        "cells": rows,
        "others": [_cell(cell, None, pictures) for cell in found.others],
        "recommendation": {
            "verdict": choice.verdict,
            "checkpoint": best.checkpoint,
            "step": best.step,
            "strength": strength,
            "strengths_as_good": also,
            "file": files.get(best.checkpoint),
            "reason": choice.reason,
            "likeness_by": choice.likeness_by,
            "tied": [one.cell.name for one in choice.tied],
            "against": {cell.checkpoint: choosing.compared(found.cells, best, cell, names) for cell in found.others},
        },
        "diagnoses": [one.as_dict() for one in diagnosis.diagnose(found.at_reference, choice, copies(found))],
        "advice": choosing.early_stop(found.at_reference, choice),
        "findings": {
            metric: {name: [_finding(one) for one in some[:MOST_FINDINGS]] for name, some in by_checkpoint.items()}
            for metric, by_checkpoint in found.findings.items()
        },
        "notes": found.notes,
    }


def copies(found: Evaluated) -> dict[str, int]:
    """Pictures that are copies of training pictures, by checkpoint, at the reference strength."""
    known = found.findings.get("memorisation", {})
    return {name: sum(one.alarming for one in some) for name, some in known.items() if name != "base"}


def _cell(cell: Cell, file: str | None, pictures: Mapping[tuple[str, int, int], str]) -> dict[str, Any]:
    values = {name: cell.estimate(name) for name in cell.readings}
    own = {f"{prompt}/{seed}": place for (name, prompt, seed), place in pictures.items() if name == picture_name(cell)}
    return {
        "checkpoint": cell.checkpoint,
        "step": cell.step,
        "strength": cell.strength,
        "file": file,
        "values": {name: _estimate(value) for name, value in values.items() if value is not None},
        "pictures": own,
    }


def picture_name(cell: Cell) -> str:
    """Under what name a cell's pictures are kept: the base has no strength."""
    return "base" if cell.checkpoint == "base" else cell.name


def _estimate(value: Estimate) -> dict[str, Any]:
    """JSON has no infinity: a bound that is unknown is null."""
    return {
        key: None if isinstance(part, float) and math.isinf(part) else part for key, part in value.as_dict().items()
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "prompt": one.picture.prompt,
        "seed": one.picture.seed,
        "value": one.value,
        "alarming": one.alarming,
        "training_picture": str(one.other.file),
    }


def _place(found: Evaluated) -> dict[tuple[str, int, int], str]:
    """Put the pictures that people look at into the report's folder: every cell's of the first seed, the others' of
    the recommendation, the base and the files compared with."""
    assert found.choice is not None
    whole = {picture_name(cell) for cell in (found.choice.best.cell, *found.others)}
    folder = found.run.report / PICTURES
    placed = {}
    for (name, prompt, seed), source in found.shown.items():
        if seed != found.protocol.seeds[0] and name not in whole:
            continue
        target = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}_p{prompt:02d}_s{seed}.png"
        put(source, target)
        placed[name, prompt, seed] = str(target.relative_to(found.run.path))
    return placed
