"""The doctor's answer: findings with their fixes, the score with its arithmetic, and what the dataset is like.

`Report.as_dict` is the JSON that the panel shows and programs read; its shape is described in docs/datasets.md and
carries a schema number. Text and page are made from the same object (`text.py`, `page.py`).
"""

from __future__ import annotations

import shlex
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from trainpilot.datasets.buckets import Size
from trainpilot.datasets.doctor.case import Case, Picture
from trainpilot.datasets.doctor.checks import checks
from trainpilot.datasets.doctor.findings import LEVELS, Finding, counted
from trainpilot.datasets.doctor.guides import guide
from trainpilot.datasets.layouts import printable

SCHEMA = 1


@dataclass(frozen=True)
class Judged:
    """A finding with the check it came from and the points it costs."""

    check: str
    why: str
    points: float
    most: float
    finding: Finding


@dataclass
class Report:
    """Everything that was found. seconds: that the check took; made: unix seconds."""

    case: Case
    judged: list[Judged]
    passed: list[tuple[str, str]]
    seconds: float = 0.0
    made: float = field(default_factory=time.time)

    @property
    def score(self) -> int:
        """100 less the points of all findings, at least 0."""
        return max(0, round(100 - sum(one.points for one in self.judged)))

    @property
    def errors(self) -> int:
        return sum(one.finding.level == "error" for one in self.judged)

    def arithmetic(self) -> list[str]:
        """The score as a sum, a line for each finding that costs something."""
        lines = ["100 to begin with"]
        for one in self.judged:
            if one.points:
                of = f" x {len(one.finding.where)}/{one.finding.of}" if one.finding.of else ""
                lines.append(f"- {one.points:g} = {one.most:g}{of}: {one.finding.title}")
        return [*lines, f"= {self.score}"]

    def command(self, judged: Judged) -> str:
        """The one command that helps, or ""."""
        fix = judged.finding.fix
        if fix is None or not (fix.kind or fix.command):
            return ""
        if fix.command:
            return shlex.join(["trainpilot", "dataset", fix.command, str(self.case.root)])
        words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in fix.options.items()]
        return shlex.join(["trainpilot", "dataset", "fix", str(self.case.root), fix.kind, *words])

    def as_dict(self) -> dict[str, Any]:
        """The JSON of schema 1."""
        case, question = self.case, self.case.question
        return {
            "schema": SCHEMA,
            "made": round(self.made, 3),
            "seconds": round(self.seconds, 2),
            "dataset": {
                "name": printable(case.root.name),
                "path": printable(case.root),
                "layout": case.layout.kind,
                "images": len(case.pictures),
                "usable": len(case.whole),
                "captioned": len(case.captioned),
                "concepts": [
                    {"folder": printable(folder), "class": printable(some[0].found.class_tokens),
                     "repeats": some[0].found.repeats, "images": len(some)}
                    for folder, some in case.concepts.items()
                ],
            },
            "question": {
                "type": question.purpose,
                "guide": guide(question.purpose).label,
                "model": question.model,
                "resolution": list(question.rules.resolution),
                "triggers": list(case.triggers),
                "trigger_source": case.trigger_source,
                "tokens": question.no_tokens or "counted with the model's own tokenizers",
            },
            "score": {"value": self.score, "sum": self.arithmetic()},
            "findings": [
                {
                    "check": one.check,
                    "level": one.finding.level,
                    "title": one.finding.title,
                    "why": one.why,
                    "files": [{"file": place.file, "detail": printable(place.detail)} for place in one.finding.where],
                    "groups": one.finding.groups,
                    "of": one.finding.of,
                    "points": one.points,
                    "fix": {"text": one.finding.fix.text, "kind": one.finding.fix.kind,
                            "options": dict(one.finding.fix.options), "command": self.command(one)}
                    if one.finding.fix else None,
                }
                for one in self.judged
            ],
            "passed": [{"check": name, "title": title} for name, title in self.passed],
            "buckets": buckets(case),
            "sizes": sizes(case),
            "captions": captions(case),
        }  # fmt: skip


def judge(case: Case) -> Report:
    """Let every check look at a case."""
    found: list[Judged] = []
    passed: list[tuple[str, str]] = []
    for name, check in checks().items():
        findings = list(check.look(case))
        if not any(finding.level != "note" for finding in findings):
            passed.append((name, check.TITLE))
        for finding in findings:
            points = round(check.POINTS * finding.share, 1)
            found.append(Judged(name, check.WHY, points, check.POINTS, finding))
    found.sort(key=lambda one: (LEVELS.index(one.finding.level), -one.points))
    return Report(case, found, passed)


def buckets(case: Case) -> list[dict[str, Any]]:
    """How the pictures fall into buckets. crop_mean, crop_most: share cut off; enlarged: pictures scaled up by 10%."""
    rows: dict[Size, list[Picture]] = defaultdict(list)
    for picture in case.whole:
        if picture.placement:
            rows[picture.placement.bucket].append(picture)
    return [
        {
            "width": bucket[0],
            "height": bucket[1],
            "images": len(some),
            "per_epoch": sum(one.found.repeats for one in some),
            "crop_mean": round(statistics.fmean(_crops(some)), 4),
            "crop_most": round(max(_crops(some)), 4),
            "enlarged": sum(one.enlarged > 1.1 for one in some),
        }
        for bucket, some in sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _crops(pictures: list[Picture]) -> list[float]:
    return [one.placement.cropped_share for one in pictures if one.placement]


def sizes(case: Case) -> dict[str, Any]:
    """Sizes and shapes of the pictures, in px."""
    every = sorted((picture.facts.size for picture in case.whole), key=lambda size: size[0] * size[1])
    shapes = Counter("square" if _square(size) else "portrait" if size[0] < size[1] else "landscape" for size in every)
    return {
        "smallest": list(every[0]) if every else None,
        "median": list(every[len(every) // 2]) if every else None,
        "largest": list(every[-1]) if every else None,
        "shapes": {name: shapes[name] for name in ("portrait", "square", "landscape")},
        "bytes": sum(picture.facts.length for picture in case.pictures),
    }


def _square(size: Size) -> bool:
    return max(size) <= 1.05 * min(size)


def captions(case: Case) -> dict[str, Any]:
    """How long captions are, in words and in each encoder's tokens."""
    texts = [picture.caption or "" for picture in case.captioned]
    words = [len(text.split()) for text in texts] or [0]
    tokens = []
    for encoder in case.question.encoders:
        counts = [encoder.count(text) for text in texts] or [0]
        row = {"encoder": encoder.name, "kind": encoder.kind, "limit": encoder.limit, "longest": max(counts)}
        over = sum(count > encoder.limit for count in counts)
        tokens.append(row | {"mean": round(statistics.fmean(counts), 1), "over": over})
    return {
        "words": {"fewest": min(words), "mean": round(statistics.fmean(words), 1), "most": max(words)},
        "tokens": tokens,
    }


def summary(report: Report) -> str:
    """One sentence for a job's end and a log."""
    by_level = Counter(one.finding.level for one in report.judged)
    told = [counted(by_level[level], level) for level in LEVELS if by_level[level]]
    images = counted(len(report.case.pictures), "picture")
    return f"score {report.score} of 100, {images}: {', '.join(told) or 'nothing to say'}"
