"""The plots of an evaluation, as SVG inside the page: drawn by matplotlib, coloured by the page's own style.

Inks are written as marks that the page's custom properties replace, so one drawing is right in the light and in the
dark theme. Used by the page; matplotlib is the extra `evaluate`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trainpilot.errors import PilotError
from trainpilot.evaluate.choosing import Cell, Choice
from trainpilot.evaluate.interval import Estimate

# What matplotlib writes -> what the page means by it.
_INKS = {"#010101": "var(--ink)", "#020202": "var(--muted)", "#030303": "var(--line)", "#040404": "var(--accent)"}
_INK, _MUTED, _LINE, _ACCENT = _INKS
_SURFACE = "#050505"
_SIZE = 13  # px of text


@contextmanager
def _figure(name: str, width: float, height: float) -> Iterator[tuple[Any, Any, list[str]]]:
    """(figure, axes, place for the SVG's text): sizes in CSS pixels at 100 to the inch."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        remedy = 'Install it: pip install "lora-pilot[evaluate]"'
        raise PilotError("plots", f"{error.name} is missing", "the packages of the extra `evaluate`", remedy) from error
    options: Any = {
        "svg.fonttype": "none",  # text stays text: it can be read out, and takes the page's font
        "svg.hashsalt": name,  # ids differ between the drawings of a page, and stay the same from one day to the next
        "font.family": "sans-serif",
        "font.size": _SIZE * 0.72,  # points
        "text.color": _INK,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _MUTED,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    with mpl.rc_context(options):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        axes = figure.subplots()
        axes.grid(True, color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        out: list[str] = []
        yield figure, axes, out
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        out.append(_for_page(buffer.getvalue()))


def _for_page(svg: str) -> str:
    """The drawing alone, with the page's colours, as wide as its place."""
    svg = svg[svg.index("<svg") :]
    # matplotlib styles * in the whole document, and names fonts that the page chooses itself.
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", rf"font-size: {_SIZE}px", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r'<svg class="plot"\1', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for mark, ink in _INKS.items():
        svg = svg.replace(mark, ink)
    return svg.replace(_SURFACE, "var(--surface)")


def balance(cells: Sequence[Cell], choice: Choice) -> str:
    """Likeness against flexibility: every cell, the Pareto front as a line, the recommendation named."""
    with _figure("balance", 640, 420) as (_, axes, out):
        front = sorted(choice.pareto, key=lambda cell: cell.mean(choice.likeness_by))
        axes.plot(
            [cell.mean(choice.likeness_by) for cell in front],
            [cell.mean("flexibility") for cell in front],
            color=_ACCENT,
            alpha=0.5,
            linewidth=1.5,
        )
        for cell in cells:
            best = cell is choice.best.cell
            alike, follows = cell.estimate(choice.likeness_by), cell.estimate("flexibility")
            if alike is None or follows is None:
                continue
            ink = _ACCENT if best or cell in choice.pareto else _MUTED
            if best:
                axes.errorbar(alike.mean, follows.mean, xerr=alike.half, yerr=follows.half, color=_ACCENT, linewidth=1)
            axes.scatter(alike.mean, follows.mean, s=64 if best else 20, color=ink, alpha=1 if best else 0.65, zorder=3)
        for cell in [choice.best.cell, *(cell for cell in front if cell is not choice.best.cell)][:5]:
            axes.annotate(
                cell.name,
                (cell.mean(choice.likeness_by), cell.mean("flexibility")),
                xytext=(7, 7),
                textcoords="offset points",
                color=_ACCENT if cell is choice.best.cell else _MUTED,
            )
        axes.set_xlabel("likeness: 0 base, 1 dataset")
        axes.set_ylabel("flexibility: share of the base's")
    return out[0]


def course(cells: Sequence[Cell], choice: Choice) -> str:
    """Likeness, flexibility and score over the steps of the run, at one strength, each with its interval."""
    known = [cell for cell in cells if cell.step is not None]
    scores = {one.cell.name: one.score for one in choice.scored}
    lines: list[tuple[str, list[Estimate | None], str, str]] = [
        ("likeness", [cell.estimate(choice.likeness_by) for cell in known], _MUTED, "--"),
        ("flexibility", [cell.estimate("flexibility") for cell in known], _MUTED, ":"),
        ("balance", [scores.get(cell.name) for cell in known], _ACCENT, "-"),
    ]
    with _figure("course", 640, 360) as (_, axes, out):
        for name, values, ink, style in lines:
            points = [(cell.step, value) for cell, value in zip(known, values, strict=True) if value is not None]
            steps = [step for step, _ in points]
            axes.plot(
                steps,
                [v.mean for _, v in points],
                style,
                color=ink,
                label=name,
                marker="o",
                markersize=4,
                linewidth=1.8,
            )
            axes.fill_between(steps, [v.low for _, v in points], [v.high for _, v in points], color=ink, alpha=0.12)
        axes.set_xlabel("optimizer steps")
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), min(1.6, axes.get_ylim()[1]))
        axes.legend(frameon=False, loc="best")
    return out[0]


def side_by_side(cells: Sequence[Cell], metrics: Sequence[tuple[str, str]]) -> str:
    """Bars of a few metrics for the base, this LoRA and others. metrics: (name, label)."""
    with _figure("against", 640, 60 + 34 * len(cells) * max(len(metrics), 1)) as (figure, first, out):
        first.remove()
        rows = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
        for axes, (metric, label) in zip(rows, metrics, strict=True):
            axes.set_title(label, loc="left", fontsize=_SIZE * 0.72, color=_INK)
            for place, cell in enumerate(cells):
                found = cell.estimate(metric)
                if found is not None:
                    ink = _ACCENT if place == 1 else _MUTED
                    axes.barh(place, found.mean, xerr=found.half, height=0.62, color=ink, ecolor=_INK, alpha=0.85)
            axes.set_yticks(range(len(cells)), [cell.checkpoint for cell in cells])
            axes.invert_yaxis()
            axes.grid(True, axis="x", color=_LINE, linewidth=0.8)
            axes.set_axisbelow(True)
    return out[0]
