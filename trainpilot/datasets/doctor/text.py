"""The report as text for a terminal, or for a file: no colour, no width of its own. Used by `dataset check`."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.findings import counted
from trainpilot.datasets.doctor.report import Judged, Report, buckets, captions, sizes

MOST_FILES = 5
MOST_BUCKETS = 12
SIGNS = {"error": "ERROR", "warning": "warning", "note": "note"}


def text(report: Report, *, every: bool = False) -> str:
    """The whole report. every: name all files, not the first few."""
    return "\n".join(_lines(report, every)) + "\n"


def _lines(report: Report, every: bool) -> Iterator[str]:
    case = report.case
    yield f"{case.root}"
    yield f"  {case.layout.kind}: {counted(len(case.pictures), 'picture')}, {len(case.captioned)} with captions"
    yield from _about(report)
    yield ""
    for one in report.judged:
        yield from _finding(report, one, every)
    if not report.judged:
        yield "nothing to say: every check passed"
        yield ""
    yield f"passed: {', '.join(title for _, title in report.passed)}"
    yield ""
    yield from _buckets(report)
    yield ""
    yield "health"
    for line in report.arithmetic():
        yield f"  {line}"
    yield ""
    yield f"score {report.score} of 100 in {report.seconds:.1f} s"


def _about(report: Report) -> Iterator[str]:
    case = report.case
    found = sizes(case)
    if found["median"]:
        shapes = ", ".join(f"{count} {name}" for name, count in found["shapes"].items() if count)
        smallest, median, largest = (f"{found[key][0]}x{found[key][1]}" for key in ("smallest", "median", "largest"))
        yield f"  sizes {smallest} to {largest}, median {median}; {shapes}"
    told = captions(case)
    if case.captioned:
        words = told["words"]
        yield f"  captions of {words['fewest']} to {words['most']} words, {words['mean']} on average"
    for row in told["tokens"]:
        name = f"{row['encoder']} ({row['kind']})"
        yield f"  {name} reads {row['limit']} tokens; the longest caption has {row['longest']}"
    if case.question.no_tokens:
        yield f"  tokens are not counted: {case.question.no_tokens}"
    if case.triggers:
        how = "given" if case.trigger_source == "given" else "most captions begin with it"
        yield f"  trigger {', '.join(map(repr, case.triggers))} ({how})"


def _finding(report: Report, one: Judged, every: bool) -> Iterator[str]:
    points = f"  (-{one.points:g})" if one.points else ""
    yield f"{SIGNS[one.finding.level]}  {one.finding.title}{points}"
    shown = one.finding.where if every else one.finding.where[:MOST_FILES]
    for place in shown:
        yield f"    {place.file}{f': {place.detail}' if place.detail else ''}"
    if len(shown) < len(one.finding.where):
        yield f"    and {len(one.finding.where) - len(shown)} more (--all names them)"
    yield f"  why   {one.why}"
    if one.finding.fix:
        yield f"  fix   {one.finding.fix.text}"
        if command := report.command(one):
            yield f"        {command}"
    yield ""


def _buckets(report: Report) -> Iterator[str]:
    rows = buckets(report.case)
    yield f"buckets for {report.case.question.model}"
    for row in rows[:MOST_BUCKETS]:
        enlarged = f", {row['enlarged']} enlarged" if row["enlarged"] else ""
        yield (
            f"  {row['width']:>5}x{row['height']:<5} {counted(row['images'], 'picture'):>12}, "
            f"{row['crop_mean']:.0%} cropped on average, {row['crop_most']:.0%} at most{enlarged}"
        )
    if len(rows) > MOST_BUCKETS:
        yield f"  and {len(rows) - MOST_BUCKETS} more"
